"""The GLUE score as its server computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from orchestrator.analysis.questions.glue import COMPONENTS, glue_score, glue_task, task_score
from orchestrator.analysis.report import write_report
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import tables

# BERT-large on GLUE's server (Devlin et al. 2018), of which Houlsby et al. print one number a task.
BERT_LARGE = {
    "cola": {"matthews_correlation": 60.5},
    "sst2": {"accuracy": 94.9},
    "mrpc": {"f1": 89.3, "accuracy": 85.4},
    "stsb": {"pearson": 87.6, "spearman": 86.5},
    "qqp": {"f1": 72.1, "accuracy": 89.3},
    "mnli": {"accuracy": 86.7, "mismatched_accuracy": 85.9},
    "qnli": {"accuracy": 91.1},
    "rte": {"accuracy": 70.1},
    "wnli": {"accuracy": 65.1},
}
ADAPTER = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}


def rows_of(synthetic: Any, task: str, options: dict[str, Any], components: dict[str, float], seed: int = 0) -> Any:
    """A completed trial that measured these components on validation, its score their mean."""
    row = synthetic.trial(synthetic.task(task), options, seed)
    row |= {f"validation/{name}": value for name, value in components.items()}
    return row | {"validation_score": sum(components.values()) / len(components)}


def results_of(rows: list[dict[str, Any]], synthetic: Any) -> Results:
    """Results with the columns of every component, as the store makes them."""
    trials = synthetic.results(rows).trials()
    for name in sorted({name for row in rows for name in row if name.startswith("validation/")}):
        column = pa.array([row.get(name) for row in rows], pa.float64())
        trials = trials.drop_columns(name) if name in trials.column_names else trials
        trials = trials.append_column(name, column)
    return Results(trials, synthetic.results(rows).epochs())


def bert_rows(synthetic: Any, prefix: str = "glue/", options: dict[str, Any] = ADAPTER) -> list[dict[str, Any]]:
    return [
        rows_of(synthetic, f"{prefix}{task}", options, {name: value / 100 for name, value in measured.items()})
        for task, measured in BERT_LARGE.items()
    ]


def test_bert_s_public_numbers_give_its_public_score() -> None:
    scores = {task: task_score(task, measured) for task, measured in BERT_LARGE.items()}
    assert scores["mrpc"] == pytest.approx(87.35)
    assert scores["mnli"] == pytest.approx(86.3)
    assert glue_score({task: score for task, score in scores.items() if score}) == pytest.approx(80.34, abs=0.005)


def test_a_score_of_fewer_than_nine_tasks_is_unknown() -> None:
    assert glue_score({task: 50.0 for task in COMPONENTS if task != "wnli"}) is None
    assert glue_score(dict.fromkeys(COMPONENTS, 50.0)) == 50.0


def test_a_task_not_measured_as_glue_measures_it_has_no_score() -> None:
    assert task_score("mrpc", {"accuracy": 0.8}) is None
    assert task_score("cola", {"accuracy": 0.8}) is None
    assert task_score("mnli", {"accuracy": 0.8}) == 0.8  # the matched half alone


@pytest.mark.parametrize(
    ("task", "known"),
    [("glue/cola", "cola"), ("cola", "cola"), ("data/rte/", "rte"), ("trec", None), ("glue", None), ("cola2", None)],
)
def test_a_task_is_known_by_the_last_part_of_its_name(task: str, known: str | None) -> None:
    assert glue_task(task) == known


@pytest.mark.parametrize("prefix", ["glue/", "", "some/where/"])
def test_a_sweep_over_all_nine_has_the_score(synthetic: Any, prefix: str) -> None:
    (row,) = results_of(bert_rows(synthetic, prefix), synthetic).glue_score().to_pylist()
    assert (row["backbone"], row["method"], row["num_tasks"], row["missing"]) == ("minilm", "adapter", 9, [])
    assert row["glue_score"] == row["mean_of_present"] == pytest.approx(80.34, abs=0.005)
    assert (row["stsb"], row["num_seeds"], row["mnli_is_matched_only"]) == (pytest.approx(87.05), 1, False)


def test_what_is_missing_is_said_and_the_mean_is_of_the_rest(synthetic: Any) -> None:
    some = [row for row in bert_rows(synthetic) if row["task"] in ("glue/mnli", "glue/cola")]
    some[1]["validation/mismatched_accuracy"] = None
    (row,) = results_of(some, synthetic).glue_score().to_pylist()
    assert row["glue_score"] is None
    assert row["mean_of_present"] == pytest.approx((60.5 + 86.7) / 2)
    assert row["missing"] == ["sst2", "mrpc", "stsb", "qqp", "qnli", "rte", "wnli", "mnli mismatched"]
    assert (row["num_tasks"], row["mnli_is_matched_only"], row["rte"]) == (2, True, None)


def test_each_task_is_of_the_configuration_that_was_best_on_it_as_a_mean_over_seeds(synthetic: Any) -> None:
    small, large = {**ADAPTER, "adapter_size": 2}, {**ADAPTER, "adapter_size": 64}
    rows = []
    for task, better in (("rte", small), ("wnli", large)):
        for options in (small, large):
            for seed, score in enumerate((0.6, 0.8) if options is better else (0.5, 0.6)):
                rows.append(rows_of(synthetic, task, options, {"accuracy": score}, seed))
    rows[0]["status"] = "pruned"  # and so no score of its configuration, which then has one seed fewer
    (row,) = results_of(rows, synthetic).glue_score().to_pylist()
    assert (row["rte"], row["wnli"], row["num_seeds"]) == (pytest.approx(55), pytest.approx(70), 2)


def test_methods_and_backbones_have_a_row_each_and_the_benchmark_s_own_task_wins(synthetic: Any) -> None:
    full = {"method": "full_finetuning", "learning_rate": 3e-5}
    rows = [
        rows_of(synthetic, "glue/rte", ADAPTER, {"accuracy": 0.6}),
        rows_of(synthetic, "other/rte", ADAPTER, {"accuracy": 0.9}),
        rows_of(synthetic, "glue/rte", full, {"accuracy": 0.7}),
        rows_of(synthetic, "trec", {**full, "learning_rate": 1e-4}, {"accuracy": 0.7}),
    ]
    table = results_of(rows, synthetic).glue_score()
    assert table["method"].to_pylist() == ["adapter", "full_finetuning"]
    assert table["rte"].to_pylist() == [pytest.approx(60), pytest.approx(70)]


def test_without_a_task_of_glue_there_is_no_row(synthetic: Any) -> None:
    assert len(synthetic.results([]).glue_score()) == 0
    accuracy_of_cola = results_of([rows_of(synthetic, "glue/cola", ADAPTER, {"accuracy": 0.8})], synthetic)
    assert len(accuracy_of_cola.glue_score()) == 0


def test_the_console_and_the_report_show_it_where_there_is_one(synthetic: Any, tmp_path: Path) -> None:
    results = results_of(bert_rows(synthetic), synthetic)
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(tables.summary(results))
    assert "GLUE score on validation" in capture.get()
    assert "80.3" in capture.get()
    files = {file.name for file in write_report(results, tmp_path, title="all nine")}
    assert {"glue.csv", "glue.parquet"} <= files
    assert '<td class="number">80.3</td>' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_table_says_where_mnli_is_its_matched_half_alone(synthetic: Any) -> None:
    rows = [rows_of(synthetic, "glue/mnli", ADAPTER, {"accuracy": 0.8})]
    table = tables.glue_table(results_of(rows, synthetic).glue_score())
    assert table.title.endswith("MNLI by its matched half alone")
    assert table.rows[0][:3] == ("adapter", "\N{EN DASH}", "80.0")
