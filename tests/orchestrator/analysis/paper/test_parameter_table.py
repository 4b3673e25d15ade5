"""Against the counts of Houlsby et al. 2019, Table 1: BERT-large, nine tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.paper.parameter_table import total_multiple
from tests.orchestrator.analysis.large_sweep import PROVENANCE, TASKS, large_results, large_rows

WHOLE, ENCODER, HEAD = 335_141_888, 302_309_376, 2_050
ADAPTERS = {8: 936_320, 64: 6_444_032, 256: 25_327_616}  # with all LayerNorms, without head


def bert_large(rows: list[dict[str, Any]], sizes: dict[int, int]) -> list[dict[str, Any]]:
    known = {**PROVENANCE, "backbone_params": str(WHOLE), "encoder_params": str(ENCODER)}
    changed = []
    for row in rows:
        size = sizes.get(row["adapter_size"]) if row["method"] == "adapter" else WHOLE
        if size is not None:
            total = WHOLE + HEAD + (size if row["method"] == "adapter" else 0)
            counts = {"trained_params": size + HEAD, "trained_params_without_head": size, "total_params": total}
            changed.append({**row, **counts, "provenance": known})
    return changed


def test_adapters_of_size_64_cost_what_the_paper_prints() -> None:
    rows = bert_large(large_rows(TASKS[:9], ("adapter", "full_finetuning")), {64: ADAPTERS[64]})
    adapters, full = large_results(rows).parameter_table().to_pylist()
    assert (adapters["method"], adapters["size"]) == ("adapter", None)
    assert adapters["trained_percent_of_encoder"] == pytest.approx(2.132, abs=5e-4)  # the paper: 2.1 %
    assert adapters["trained_percent"] == pytest.approx(1.923, abs=5e-4)
    assert adapters["total_multiple_of_encoder"] == pytest.approx(1 + 9 * 0.02132, abs=1e-3)  # the paper: 1.2
    assert adapters["trained_params_all_tasks"] == 9 * ADAPTERS[64]
    assert (full["total_multiple"], full["trained_percent"]) == (9.0, 100.0)  # the paper: 9.0 and 100 %
    assert (full["total_multiple_of_encoder"], full["trained_percent_of_encoder"]) == (9.0, 100.0)


def test_sizes_chosen_per_task_cost_the_sum_of_those_chosen() -> None:
    """Three tasks of each size, the only split of nine that gives the paper's 3.6 % and 1.3."""
    best = {task: (8, 64, 256)[index % 3] for index, task in enumerate(TASKS[:9])}
    rows = [
        {**row, "validation_score": 0.9 if row["adapter_size"] == best[row["task"]] else 0.5}
        for row in bert_large(large_rows(TASKS[:9], ("adapter",)), ADAPTERS)
        if row["validation_score"] is not None
    ]
    table = large_results(rows).parameter_table().to_pylist()
    chosen = table[0]
    assert [row["size"] for row in table] == [
        "chosen per task",
        "adapter_size 8",
        "adapter_size 64",
        "adapter_size 256",
    ]
    assert chosen["trained_percent_of_encoder"] == pytest.approx(3.606, abs=1e-3)
    assert chosen["total_multiple_of_encoder"] == pytest.approx(1.324, abs=1e-3)


def test_copies_share_no_backbone_and_everything_else_does() -> None:
    assert total_multiple([1.0] * 17) == 17
    assert total_multiple([0.0114] * 17) == pytest.approx(1.194, abs=1e-3)
    # Variable fine-tuning: shares n/12 whose mean over 17 tasks is 52.9 %.
    assert total_multiple([108 / 204] * 17) == pytest.approx(10.0)
    assert total_multiple([1.0, 0.5]) == 2.5
    assert total_multiple([]) == 0


def test_sizes_that_were_not_recorded_are_named_and_null() -> None:
    rows = [{**row, "provenance": {"commit": "0123abc"}} for row in large_rows(TASKS[:2], ("adapter",))]
    table = large_results(rows).parameter_table()
    assert set(table["trained_percent"].to_pylist()) == {None}
    assert any("its size is not recorded" in note for note in missing_of(table))


def test_the_backbone_is_what_full_finetuning_trains_where_nothing_else_says_it() -> None:
    rows = [{**row, "provenance": None} for row in large_rows(TASKS[:2], ("adapter", "full_finetuning"))]
    table = large_results(rows).parameter_table()
    assert set(table["backbone_params"].to_pylist()) == {109_482_240}
    assert set(table["encoder_params"].to_pylist()) == {None}


def test_a_size_that_a_task_lacks_is_named() -> None:
    rows = [r for r in large_rows(TASKS[:2], ("adapter",)) if (r["task"], r["adapter_size"]) != (TASKS[0], 64)]
    table = large_results(rows).parameter_table()
    assert "adapter, adapter_size 64: on 1 of 2 tasks" in missing_of(table)


def test_a_method_without_a_backbone_has_models_of_its_own_and_nothing_beside_them() -> None:
    body, head = 3_000_000, 1_538
    rows = [
        {**row, "method": "no_bert", "trained_params": 1_000_000 + head, "trained_params_without_head": 1_000_000}
        | {"total_params": body + head}
        for row in large_rows(TASKS[:2], ("layernorm",))
    ]
    [row] = large_results(rows).parameter_table().to_pylist()
    assert row["total_multiple"] == pytest.approx(2 * body / row["backbone_params"])
    assert row["trained_params_all_tasks"] == 2_000_000


def test_what_a_method_s_own_file_says_of_it_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainables.methods

    (tmp_path / "words_alone.py").write_text("USES_BACKBONE = False\n")
    folders = trainables.methods.__spec__.submodule_search_locations
    monkeypatch.setattr(trainables.methods.__spec__, "submodule_search_locations", [*folders, str(tmp_path)])
    body, head = 3_000_000, 1_538
    rows = [
        {**row, "method": "words_alone", "trained_params": body + head, "trained_params_without_head": body}
        | {"total_params": body + head}
        for row in large_rows(TASKS[:2], ("layernorm",))
    ]
    [row] = large_results(rows).parameter_table().to_pylist()
    assert row["total_multiple"] == pytest.approx(2 * body / row["backbone_params"])


def test_a_row_that_lacks_tasks_has_no_average_to_compare() -> None:
    rows = [*large_rows(TASKS[5:7], ("layernorm",)), *large_rows(TASKS[5:6], ("bitfit",))]
    averages = {row["method"]: row["average"] for row in large_results(rows).parameter_table().to_pylist()}
    assert averages["bitfit"] is None
    assert averages["layernorm"] is not None
