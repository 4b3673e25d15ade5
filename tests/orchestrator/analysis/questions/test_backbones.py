"""Several backbones in one sweep: every answer keeps them apart, and pairs tasks within one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import tables
from trainables.faults import FaultsError

OTHER = "/models/cut/small"


def on_other(rows: list[dict[str, Any]], loss: float) -> list[dict[str, Any]]:
    """The same trials on another backbone, half as large and worse by so much."""

    def less(value: float | None) -> float | None:
        return None if value is None else value - loss

    return [
        {
            **row,
            "backbone": OTHER,
            **{name: f"other-{row[name]}" for name in ("trial_id", "config_id")},
            "total_params": row["total_params"] and row["total_params"] // 2,
            "validation_score": less(row["validation_score"]),
            "test_score": less(row["test_score"]),
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    from tests.orchestrator.analysis.conftest import sweep_rows

    return sweep_rows()


@pytest.fixture(scope="module")
def both(rows: list[dict[str, Any]]) -> Results:
    from tests.orchestrator.analysis.conftest import results_of

    return results_of([*rows, *on_other(rows, 0.1)])


def of_backbone(table: pa.Table, backbone: str) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["backbone"] == backbone]


def test_the_best_is_of_each_backbone_where_it_is_asked_so(both: Results, finished: Results) -> None:
    assert both.method_columns() == ["task", "backbone", "method"]
    assert finished.method_columns() == ["task", "method"]
    best = both.best(per=("task", "backbone", "method"))
    alone = [row["config_id"] for row in finished.best().to_pylist()]
    assert [row["config_id"] for row in of_backbone(best, "minilm")] == alone
    assert [row["config_id"] for row in of_backbone(best, OTHER)] == [f"other-{config_id}" for config_id in alone]
    assert set(both.best()["backbone"].to_pylist()) == {"minilm"}  # the better one, over both


def test_a_curve_is_of_one_backbone_and_relative_to_its_own_reference(both: Results, finished: Results) -> None:
    curve, alone = both.curve(), finished.curve()
    for backbone in ("minilm", OTHER):
        own = of_backbone(curve, backbone)
        assert [row["p50"] for row in own] == pytest.approx(alone["p50"].to_pylist())
        assert [row["trained_params"] for row in own] == alone["trained_params"].to_pylist()


def test_a_backbone_without_the_reference_is_named(rows: list[dict[str, Any]], synthetic: Any) -> None:
    others = on_other(rows, 0.1)
    for left_out, words in (("trec", "trec (small)"), (None, "small (every task)")):
        kept = [r for r in others if r["method"] != "full_finetuning" or (left_out and r["task"] != left_out)]
        told = missing_of(synthetic.results([*rows, *kept]).points())
        assert f"full_finetuning: no score to compare with on {words}" in told


def test_methods_are_compared_within_each_backbone(both: Results, finished: Results) -> None:
    compared, alone = both.compare("adapter", "layernorm"), finished.compare("adapter", "layernorm")
    for backbone in ("minilm", OTHER):
        own = compared.filter(pc.equal(compared["backbone"], backbone))
        for name in ("task", "num_tasks", "a_num_configs_tried", "p_value", "smallest_p"):
            assert own[name].to_pylist() == alone[name].to_pylist()
        assert own["difference"].to_pylist() == pytest.approx(alone["difference"].to_pylist())
    pairs = both.comparisons()
    assert len(pairs) == 2 * len(finished.comparisons())
    assert set(pairs["num_tasks"].to_pylist()) == {4}
    assert [row["p_holm"] for row in pairs.to_pylist()] == pytest.approx([1.0] * len(pairs))  # 12 pairs of 4 tasks


def test_backbones_are_compared_where_both_sides_name_one(both: Results) -> None:
    a, b = ({"method": "adapter", "backbone": backbone} for backbone in ("minilm", OTHER))
    found = both.compare(a, b)
    assert found["backbone"].to_pylist() == [None] * 5
    assert found["difference"].to_pylist() == pytest.approx([0.1] * 5)
    one_named = both.compare(a, "layernorm")
    assert one_named["backbone"].to_pylist() == ["minilm"] * 5
    with pytest.raises(FaultsError, match="backbone of this sweep"):
        both.compare({"method": "adapter", "backbone": "minlm"}, b)


def test_a_recommendation_is_over_all_backbones_and_says_what_each_is_in_all(synthetic: Any) -> None:
    adapter = {"method": "adapter", "adapter_size": 64, "learning_rate": 1e-3}
    large = synthetic.scored(adapter, [0.9, 0.9, 0.92])
    layernorm = {"method": "layernorm", "learning_rate": 1e-3}
    small = synthetic.scored(layernorm, [0.9, 0.9, 0.91], backbone=OTHER, total_params=large[0]["total_params"] // 4)
    results = synthetic.results([*large, *small])
    (row,) = results.recommend().to_pylist()
    assert (row["backbone"], row["method"]) == (OTHER, "layernorm")
    assert "of adapter on minilm, with " in row["why"]
    assert " of its trained parameters and 25 % of all its parameters, which are what using it costs." in row["why"]
    table = tables.recommendation_table(results.recommend(), [], results.backbone_names())
    assert table.rows[0][1] == "layernorm on small"  # though no other backbone is in the table
    assert table.right[:2] == ("trained", "in all")


def test_differences_ranks_and_throughput_keep_backbones_apart(both: Results, finished: Results) -> None:
    differences = both.paired_differences()
    assert all(row["num_tasks"] in (1, 4) for row in differences.to_pylist())
    overall = [row for row in differences.to_pylist() if row["task"] is None and row["method"] == "adapter"]
    assert [row["difference"] for row in overall] == pytest.approx([overall[0]["difference"]] * 2)
    assert {(row["backbone"], row["method"]) for row in both.ranks().to_pylist()} == {
        (backbone, row["method"]) for backbone in ("minilm", OTHER) for row in finished.ranks().to_pylist()
    }
    speeds = both.throughput().to_pylist()
    assert {row["backbone"] for row in speeds} == {"minilm", OTHER}
    assert len(speeds) == 2 * len(finished.throughput())


def test_what_differs_between_backbones_alone_is_not_searched(rows: list[dict[str, Any]], synthetic: Any) -> None:
    changed = [{**row, "batch_size": 16} for row in on_other(rows, 0.1)]
    assert synthetic.results([*rows, *changed]).searched() == synthetic.results(rows).searched()


def test_a_paper_has_tables_of_each_backbone(both: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.analysis.paper.write._figures", lambda results: ())  # which take long to draw
    names = {file.name for file in both.paper(tmp_path) if file.parent.name == "tables"}
    stems = ("scores-minilm", "scores-small", "parameters-minilm", "parameters-small")
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("tex", "md")}
    small = (tmp_path / "tables" / "scores-small.md").read_text(encoding="utf-8")
    assert "Backbone: small." in small
    assert " on small" not in small
    text = (tmp_path / "methods.md").read_text(encoding="utf-8")
    assert "We adapted small (" in text
    assert "On each task with each backbone we tried 6 configurations of adapter" in text


def test_an_export_is_of_the_better_backbone_or_of_the_one_that_is_asked_for(both: Results) -> None:
    from orchestrator.cli.export import choose

    assert choose("export", both, task="trec", trial=None)["backbone"] == "minilm"
    for name in ("small", OTHER):
        assert choose("export", both, task="trec", trial=None, backbone=name)["backbone"] == OTHER
    with pytest.raises(FaultsError, match="--backbone: unknown backbone of this sweep 'large'"):
        choose("export", both, task="trec", trial=None, backbone="large")


def test_a_trial_that_is_named_must_be_what_else_is_asked_for(both: Results) -> None:
    from orchestrator.cli.export import choose

    chosen = choose("export", both, task="trec", trial=None, backbone="small")
    trial, method = chosen["trial_id"], chosen["method"]
    assert choose("export", both, task="trec", trial=trial, method=method, backbone="small")["trial_id"] == trial
    with pytest.raises(FaultsError) as error:
        choose("export", both, task="cola", trial=trial, method="pals", backbone="minilm")
    assert [fault.partition("but ")[2] for fault in error.value.faults] == [
        "--task asks for cola; name the trial alone",
        "--method asks for pals; name the trial alone",
        "--backbone asks for minilm; name the trial alone",
    ]
