from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.analysis.results import Results
from orchestrator.record import TrialStatus
from trainables.faults import FaultsError

ADAPTER = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}
LARGER = {"method": "adapter", "adapter_size": 64, "learning_rate": 1e-3}
FULL = {"method": "full_finetuning", "learning_rate": 1e-4}


def test_best_is_chosen_on_validation_and_reported_on_test(synthetic: Any) -> None:
    rows = synthetic.scored(ADAPTER, [0.90, 0.92], test_score=0.5) + synthetic.scored(LARGER, [0.80, 0.82])
    best = synthetic.results(rows).best().to_pylist()
    assert len(best) == 1
    assert best[0]["adapter_size"] == 8
    assert best[0]["validation_mean"] == pytest.approx(0.91)
    assert best[0]["test_mean"] == 0.5


def test_a_pruned_replicate_is_no_score_and_its_configuration_loses_to_a_whole_one(synthetic: Any) -> None:
    pruned = synthetic.scored(ADAPTER, [0.99], status="pruned", test_score=None)
    rows = [*synthetic.scored(ADAPTER, [0.90]), {**pruned[0], "seed": 1, "trial_id": "pruned"}]
    (best,) = synthetic.results(rows).best().to_pylist()
    assert (best["validation_mean"], best["num_seeds"], best["num_trials"]) == (pytest.approx(0.9), 1, 2)
    (best,) = synthetic.results([*rows, *synthetic.scored(LARGER, [0.80, 0.82])]).best().to_pylist()
    assert (best["adapter_size"], best["num_trials"], best["num_failed"]) == (64, 4, 0)
    assert len(synthetic.results(pruned).best()) == 0  # none that was pruned on every seed


def test_best_has_a_row_per_task_and_method_with_what_it_took(finished: Results) -> None:
    rows = finished.best().to_pylist()
    assert [(row["task"], row["method"]) for row in rows[:5]] == [
        ("corporate_messaging", "adapter"),
        ("corporate_messaging", "full_finetuning"),
        ("corporate_messaging", "layernorm"),
        ("corporate_messaging", "top_layers"),
        ("glue/cola", "adapter"),
    ]
    assert len(rows) == 16
    trec = next(row for row in rows if (row["task"], row["method"]) == ("trec", "adapter"))
    assert (trec["num_configs_tried"], trec["num_trials"], trec["num_failed"]) == (6, 18, 1)


def test_best_agrees_with_a_computation_by_hand(finished: Results) -> None:
    trials = [row for row in finished.trials().to_pylist() if row["status"] == "completed"]
    for row in finished.best().to_pylist():
        own = [t for t in trials if (t["task"], t["method"]) == (row["task"], row["method"])]
        by_config: dict[str, list[dict]] = {}
        for trial in own:
            by_config.setdefault(trial["config_id"], []).append(trial)
        full = {c: ts for c, ts in by_config.items() if len(ts) == 3}
        winner = max(full, key=lambda c: statistics.fmean(t["validation_score"] for t in full[c]))
        scores = [t["test_score"] for t in full[winner]]
        assert row["config_id"] == winner
        assert row["num_seeds"] == 3
        if row["task"] == "glue/cola":
            assert row["test_mean"] is row["test_sem"] is None
        else:
            assert row["test_mean"] == pytest.approx(statistics.fmean(scores), abs=1e-15)
            assert row["test_sem"] == pytest.approx(statistics.stdev(scores) / math.sqrt(3), abs=1e-15)


def test_one_seed_has_a_mean_and_no_standard_error(synthetic: Any) -> None:
    (row,) = synthetic.results(synthetic.scored(ADAPTER, [0.9])).best().to_pylist()
    assert (row["validation_mean"], row["validation_sem"], row["num_seeds"]) == (0.9, None, 1)


def test_best_of_a_task_names_the_winning_method(finished: Results) -> None:
    best = finished.best(per=("task",))
    assert best["task"].to_pylist() == ["corporate_messaging", "glue/cola", "sms_spam", "trec"]
    assert best["num_configs_tried"].to_pylist() == [12] * 4
    assert set(best["method"].to_pylist()) <= {"adapter", "top_layers", "full_finetuning", "layernorm"}


def test_best_groups_by_a_hyperparameter_with_null_as_a_group_of_its_own(finished: Results) -> None:
    best = finished.best(per=("task", "method", "adapter_size"))
    assert best.column_names[:3] == ["task", "method", "adapter_size"]
    assert len(set(best.column_names)) == best.num_columns
    trec = [(r["method"], r["adapter_size"]) for r in best.to_pylist() if r["task"] == "trec"]
    methods = [("full_finetuning", None), ("layernorm", None), ("top_layers", None)]
    assert trec == [("adapter", 2), ("adapter", 8), ("adapter", 64), *methods]


def test_every_fault_of_a_grouping_is_named_at_once(finished: Results) -> None:
    with pytest.raises(FaultsError) as caught:
        finished.best(per=("method", "adapter_sise", "seed"))
    faults = "\n".join(caught.value.faults)
    assert "unknown column to group by 'adapter_sise'; did you mean 'adapter_size'" in faults
    assert "unknown column to group by 'seed'" in faults
    assert "per: must contain 'task'" in faults


def test_only_completed_trials_count_for_scores_and_failed_ones_are_counted(synthetic: Any) -> None:
    rows = synthetic.scored(ADAPTER, [0.7, 0.8, 0.9, 0.99])
    rows = [rows[0], rows[1], synthetic.fail(rows[2]), {**rows[3], "status": "pruned"}]
    (row,) = synthetic.results(rows).best().to_pylist()
    assert row["validation_mean"] == 0.75
    assert (row["num_seeds"], row["num_trials"], row["num_failed"]) == (2, 4, 1)


def test_the_smallest_within_one_standard_error_is_recommended(synthetic: Any) -> None:
    rows = synthetic.scored(FULL, [0.94, 0.95, 0.96])  # mean 0.95, s.e.m. 0.00577
    rows += synthetic.scored(LARGER, [0.945, 0.946, 0.947]) + synthetic.scored(ADAPTER, [0.943, 0.944, 0.945])
    (row,) = synthetic.results(rows).recommend().to_pylist()
    assert (row["method"], row["adapter_size"]) == ("adapter", 64)  # 0.944 is 0.006 below the best
    assert (row["best_method"], row["best_validation_mean"]) == ("full_finetuning", pytest.approx(0.95))
    assert row["trained_params"] < row["best_trained_params"]
    assert row["num_configs_tried"] == 3


def test_with_one_seed_the_best_itself_is_recommended(synthetic: Any) -> None:
    rows = synthetic.scored(FULL, [0.95]) + synthetic.scored(ADAPTER, [0.949])
    (row,) = synthetic.results(rows).recommend().to_pylist()
    assert row["config_id"] == row["best_config_id"]
    assert row["method"] == "full_finetuning"
    assert row["test_low"] is row["test_high"] is None


def test_choosing_never_looks_at_test_scores(finished: Results, synthetic: Any) -> None:
    shuffled = np.random.default_rng(0).permutation(len(finished.trials()))
    rows = finished.trials().to_pylist()
    tested = [{**row, "test_score": rows[other]["test_score"]} for row, other in zip(rows, shuffled, strict=True)]
    other = synthetic.results(tested)
    assert other.best()["config_id"] == finished.best()["config_id"]
    assert other.recommend()["config_id"] == finished.recommend()["config_id"]
    assert other.points()["config_id"] == finished.points()["config_id"]
    assert other.best()["test_mean"] != finished.best()["test_mean"]


def test_an_empty_sweep_gives_empty_tables_with_the_same_columns(finished: Results, synthetic: Any) -> None:
    empty = synthetic.results([])
    for question in ("best", "curve", "recommend", "points", "trials", "epochs"):
        answer, full = getattr(empty, question)(), getattr(finished, question)()
        assert (len(answer), answer.schema) == (0, full.schema)
    assert empty.counts() == {}


def test_a_half_finished_sweep_answers_from_what_is_there(synthetic: Any) -> None:
    rows = synthetic.rows()
    results = synthetic.results(rows[:50], plan=rows)
    assert results.counts() == {TrialStatus.COMPLETED: 48, TrialStatus.FAILED: 2, TrialStatus.PLANNED: 94}
    assert set(results.recommend()["task"].to_pylist()) == {"trec", "sms_spam"}
    assert set(results.best()["num_seeds"].to_pylist()) == {3}
    assert len(results.curve()) == 8


def test_a_sweep_of_which_everything_failed_has_counts_and_no_answers(synthetic: Any) -> None:
    results = synthetic.results([synthetic.fail(row) for row in synthetic.rows()])
    assert results.counts() == {TrialStatus.FAILED: 144}
    for question in ("best", "curve", "recommend", "points"):
        assert len(getattr(results, question)()) == 0


def test_equal_results_give_equal_answers_whatever_the_order_of_the_records(synthetic: Any) -> None:
    rows = synthetic.rows()
    ordered, reverse = synthetic.results(rows), synthetic.results(rows[::-1])
    for question in ("best", "curve", "recommend", "points"):
        assert getattr(ordered, question)().equals(getattr(reverse, question)())


def test_two_rows_of_one_trial_are_refused(synthetic: Any) -> None:
    row = synthetic.rows()[0]
    with pytest.raises(ValueError, match="one row a trial, but got several of"):
        synthetic.results([row, row])


def test_what_an_older_store_did_not_record_reads_as_null(finished: Results) -> None:
    trials = finished.trials().drop_columns(["peak_memory_bytes", "total_params"])
    older = Results(trials, finished.epochs())
    assert older.trials()["peak_memory_bytes"].null_count == len(trials)
    assert older.best()["total_params"].null_count == 16
    assert older.best()["config_id"] == finished.best()["config_id"]


def test_searched_are_the_hyperparameters_that_vary(finished: Results) -> None:
    assert finished.searched() == ["adapter_size", "num_layers", "learning_rate"]


@pytest.mark.thorough
def test_ten_thousand_trials_are_read_a_column_at_a_time(synthetic: Any) -> None:
    """Materialising whole rows would cost seconds on large sweeps; no answer may ask for them."""
    tasks = [dataclasses.replace(synthetic.tasks[0], name=f"task-{i:03}") for i in range(280)]
    results = synthetic.results(synthetic.rows(tasks))
    trials = _NoRows(results.trials())
    large = Results(trials, results.epochs())  # type: ignore[arg-type]
    assert len(large.recommend()) == 280
    assert len(large.compare("adapter", "full_finetuning")) == 281
    assert len(set(large.pareto()["task"].to_pylist())) == 280


class _NoRows:
    """A table that can be read by column only."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        if name in ("to_pylist", "to_pandas", "slice", "filter", "take"):
            raise AssertionError(f"rows were asked for with {name}")
        return getattr(self._table, name)

    def __getitem__(self, name: str) -> Any:
        return self._table[name]

    def __len__(self) -> int:
        return len(self._table)


def test_epochs_are_laid_out_once_and_only_when_asked_for(finished: Results) -> None:
    made: list[pa.Table] = []

    def make() -> pa.Table:
        made.append(pa.table({"epoch": [1]}))
        return made[-1]

    results = Results(finished.trials(), make)
    results.best()
    assert made == []
    assert results.epochs() is results.epochs()
    assert len(made) == 1
