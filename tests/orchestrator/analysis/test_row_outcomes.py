"""What trials predicted in the answers: which intervals it widens, what is read for it, and where it is missing."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.resampled_metrics import paired_p_value, row_outcomes
from orchestrator.analysis.results import Results
from orchestrator.analysis.statistics import intervals, significance
from orchestrator.analysis.text.tables import summary
from orchestrator.run.sweep import results_of
from orchestrator.store import Store
from tests.orchestrator.analysis.conftest import Synthetic
from tests.predicted_sweep import SETTINGS, MadeTask, write_sweep
from trainables import metrics
from trainables.faults import FaultsError

A = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}
B = {"method": "full_finetuning", "learning_rate": 1e-4}
NUM_ROWS = 60
CHANGED = ("low", "high", "interval_over", "p_rows")


class Memory:
    """Predictions of trials on `NUM_ROWS` test rows, and what was asked of them."""

    def __init__(self, right: Mapping[str, np.ndarray], *, torn: str | None = None) -> None:
        self.right, self.torn = right, torn
        self.rows: dict[str, str] = {}
        self.asked: list[set[str]] = []

    def read(self, trainings: Mapping[str, str | None], split: str | None) -> dict[str, pa.Table]:
        self.asked.append(set(trainings))
        if self.torn in trainings:
            raise FaultsError("predictions", ["a file is torn"])
        return {trial_id: self._table(trial_id, split) for trial_id in trainings if trial_id in self.right}

    def why_none(self, sweep: str) -> str:
        return f"sweep {sweep} says keep_predictions: false"

    def _table(self, trial_id: str, split: str | None) -> pa.Table:
        right = self.right[trial_id]
        labels = np.arange(len(right)) % 2
        return pa.table(
            {
                "trial_id": [trial_id] * len(right),
                "split": [split] * len(right),
                "rows": [self.rows.get(trial_id, "r")] * len(right),
                "row": np.arange(len(right)),
                "row_hash": ["x"] * len(right),
                "label": labels,
                "prediction": np.where(right, labels, 1 - labels),
                "scores": pa.array(np.log([[0.8, 0.2]] * len(right)).tolist(), pa.list_(pa.float16())),
                "classes": pa.nulls(len(right), pa.list_(pa.int32())),
            }
        )


Made = tuple[list[dict[str, Any]], Memory, dict[str, np.ndarray]]


@pytest.fixture
def made(synthetic: Synthetic) -> Callable[..., Made]:
    def make(num_seeds: int = 3, metric: str = "accuracy", **changes: Any) -> Made:
        """Trials of both sides, what they predicted, and by side whether each seed was right on each row."""
        rng = np.random.default_rng(num_seeds)
        hard = rng.random(NUM_ROWS)
        rows: list[dict[str, Any]] = []
        right: dict[str, np.ndarray] = {}
        sides = {}
        for name, options, level in (("a", A, 0.75), ("b", B, 0.6)):
            sides[name] = (level + 0.3 * rng.normal(size=(num_seeds, NUM_ROWS)) > hard).astype(bool)
            scores = [_score(metric, each) for each in sides[name]]
            own = synthetic.scored(options, [0.9] * num_seeds, metric=metric, **changes)
            rows += [{**row, "test_score": score} for row, score in zip(own, scores, strict=True)]
            right |= {row["trial_id"]: each for row, each in zip(own, sides[name], strict=True)}
        return rows, Memory(right), sides

    return make


def _score(metric: str, right: np.ndarray) -> float:
    labels = np.arange(len(right)) % 2
    return metrics.get(metric).score(np.where(right, labels, 1 - labels), labels, 2)


def ask(synthetic: Synthetic, rows: list[dict[str, Any]], memory: Any) -> Results:
    plain = synthetic.results(rows)
    return Results(plain.trials(), plain.epochs(), predictions=memory)


def on_task(results: Results, **terms: Any) -> dict[str, Any]:
    return results.compare("adapter", "full_finetuning", **terms).to_pylist()[0]  # type: ignore[no-any-return]


def test_the_interval_is_over_seeds_and_rows_and_the_p_value_over_rows(
    synthetic: Synthetic, made: Callable[..., Made]
) -> None:
    rows, memory, sides = made()
    row = on_task(ask(synthetic, rows, memory))
    expected = intervals.difference_over_rows(sides["a"], sides["b"])
    assert expected is not None
    assert (row["low"], row["high"]) == pytest.approx(expected.interval())
    assert row["difference"] == pytest.approx(sides["a"].mean() - sides["b"].mean())
    assert row["interval_over"] == "seeds and rows"
    assert row["p_rows"] == significance.sign_flip_over_rows(sides["a"], sides["b"])
    seeds = on_task(synthetic.results(rows))
    assert (seeds["interval_over"], seeds["p_rows"]) == ("seeds", None)
    assert {**seeds, **dict.fromkeys(CHANGED)} == {**row, **dict.fromkeys(CHANGED)}


def test_the_row_over_all_tasks_does_not_change(synthetic: Synthetic, made: Callable[..., Made]) -> None:
    rows, memory, _ = made()
    both = [results.compare("adapter", "full_finetuning").to_pylist()[-1]
            for results in (ask(synthetic, rows, memory), synthetic.results(rows))]  # fmt: skip
    assert both[0] == both[1]
    memory.asked.clear()
    results = ask(synthetic, rows, memory)
    results.comparisons()
    assert memory.asked == []


def test_with_one_seed_the_rows_are_compared_by_mcnemars_test(synthetic: Synthetic, made: Callable[..., Made]) -> None:
    rows, memory, sides = made(1)
    row = on_task(ask(synthetic, rows, memory), margin=0.1)
    assert row["p_rows"] == pytest.approx(significance.mcnemar(sides["a"][0], sides["b"][0]).p_value)
    assert row["low"] is row["interval_over"] is row["lower_bound"] is row["is_non_inferior"] is None


def test_the_margin_is_judged_with_rows_too(synthetic: Synthetic, made: Callable[..., Made]) -> None:
    rows, memory, sides = made()
    row = on_task(ask(synthetic, rows, memory), margin=0.01)
    found = intervals.difference_over_rows(sides["a"], sides["b"])
    assert found is not None
    bound = found.mean - stats.t.ppf(0.95, found.degrees_of_freedom) * found.standard_error
    assert row["lower_bound"] == pytest.approx(bound)
    assert row["is_non_inferior"] == (bound > -0.01)


def test_predictions_come_before_the_number_of_rows(synthetic: Synthetic, made: Callable[..., Made]) -> None:
    rows, memory, _ = made()
    results = ask(synthetic, rows, memory)
    assert on_task(results, test_rows={"trec": NUM_ROWS}) == on_task(results)


@pytest.mark.parametrize("metric", ["f1", "matthews_correlation", "f1_and_accuracy"])
@pytest.mark.thinned(1)
def test_of_a_metric_that_is_no_mean_over_rows_rows_are_drawn_again(
    metric: str, synthetic: Synthetic, made: Callable[..., Made]
) -> None:
    rows, memory, sides = made(2, metric)
    row = on_task(ask(synthetic, rows, memory))
    assert row["interval_over"] == "seeds and rows"

    def score(predictions: np.ndarray, labels: np.ndarray) -> float:
        f1 = 2 * (predictions * labels).sum() / (predictions.sum() + labels.sum())
        accuracy = (predictions == labels).mean()
        found = {"f1": f1, "f1_and_accuracy": (f1 + accuracy) / 2}
        return float(found.get(metric, np.corrcoef(predictions, labels)[0, 1]))

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        levels = [np.mean([score(each, side[:, 0]) for each in side[:, 1:].T]) for side in (first, second)]
        return float(levels[0] - levels[1])

    labels = np.arange(NUM_ROWS) % 2
    ours, theirs = (np.column_stack([labels, *np.where(side, labels, 1 - labels)]) for side in sides.values())
    expected = significance.paired_bootstrap(
        ours, theirs, rng=np.random.default_rng(0), statistic=difference, num_resamples=2000
    )
    assert row["p_rows"] == pytest.approx(expected.p_value)
    assert row["difference"] == pytest.approx(expected.difference)
    # Where seeds hardly differ, rows make the interval; both ways to see how far they move it agree.
    assert row["high"] - row["low"] > 0.7 * (expected.high - expected.low)


def test_a_lower_score_is_better_where_the_metric_says_so(
    synthetic: Synthetic, made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error", error)
    rows, memory, sides = made(3, "error")
    row = on_task(ask(synthetic, rows, memory))
    assert row["difference"] == pytest.approx(sides["b"].mean() - sides["a"].mean())
    assert row["low"] < row["difference"] < row["high"]
    expected = intervals.difference_over_rows(sides["b"], sides["a"])
    assert expected is not None
    assert row["high"] - row["low"] == pytest.approx(np.ptp(expected.interval()))


def test_equalised_sides_use_the_rows_of_all_that_may_be_the_best(
    synthetic: Synthetic, made: Callable[..., Made]
) -> None:
    rows, memory, sides = made()
    other = synthetic.scored({**A, "adapter_size": 64}, [0.8] * 3)
    rows += [{**row, "test_score": 0.5} for row in other]
    half = np.arange(NUM_ROWS) < NUM_ROWS / 2
    memory.right = {**memory.right, **{row["trial_id"]: half for row in other}}
    row = on_task(ask(synthetic, rows, memory), equalise=True)
    mixed = (sides["a"].astype(float) + half) / 2  # each is the best of one drawn with a chance of a half
    expected = intervals.difference_over_rows(mixed, sides["b"])
    assert expected is not None
    assert (row["low"], row["high"]) == pytest.approx(expected.interval())
    assert row["p_rows"] == pytest.approx(
        significance.paired_bootstrap(mixed.mean(axis=0), sides["b"].mean(axis=0), rng=np.random.default_rng(0)).p_value
    )


def test_of_different_rows_or_where_one_is_missing_seeds_alone_are_used(
    synthetic: Synthetic, made: Callable[..., Made]
) -> None:
    rows, memory, _ = made()
    seeds = on_task(synthetic.results(rows))
    memory.rows = {rows[0]["trial_id"]: "other"}
    assert on_task(ask(synthetic, rows, memory)) == seeds
    memory.rows = {row["trial_id"]: "other" for row in rows[:3]}
    assert on_task(ask(synthetic, rows, memory)) == seeds
    memory.rows = {}
    memory.right = {trial_id: right for trial_id, right in memory.right.items() if trial_id != rows[4]["trial_id"]}
    assert on_task(ask(synthetic, rows, memory)) == seeds


def test_what_cannot_be_read_costs_no_answer(
    synthetic: Synthetic, made: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    rows, memory, _ = made()
    memory.torn = rows[0]["trial_id"]
    results = ask(synthetic, rows, memory)
    with caplog.at_level(logging.WARNING):
        row = on_task(results)
    assert row == on_task(synthetic.results(rows))
    assert "a file is torn" in caplog.text
    [other] = results.recommend().to_pylist()
    assert other["interval_over"] in ("seeds", "seeds and rows")


class TestRecommend:
    def test_covers_rows_where_they_are_kept_and_says_so(self, synthetic: Synthetic, made: Callable[..., Made]) -> None:
        rows, memory, sides = made()
        for seed, row in enumerate(rows):
            row["validation_score"] = 0.9 + 0.02 * (seed % 3) - 0.001 * (seed < 3)  # the smaller one is as good
        [row] = ask(synthetic, rows, memory).recommend(within=0.01).to_pylist()
        own = intervals.estimate_over_rows(sides["a"])
        difference = intervals.difference_over_rows(sides["a"], sides["b"])
        assert own is not None
        assert difference is not None
        assert (row["test_low"], row["test_high"]) == pytest.approx(own.interval())
        assert (row["difference_low"], row["difference_high"]) == pytest.approx(difference.interval())
        assert (row["interval_over"], row["difference_over"]) == ("seeds and rows", "seeds and rows")
        assert "with a 95 % interval over seeds and rows from" in row["why"]
        [plain] = synthetic.results(rows).recommend(within=0.01).to_pylist()
        assert (plain["interval_over"], plain["difference_over"]) == ("seeds", "seeds")
        assert "with a 95 % interval over seeds from" in plain["why"]
        assert plain["share_kept"] == row["share_kept"]

    def test_reads_the_chosen_and_the_best_alone_and_once(self, tmp_path: Path) -> None:
        store = write_sweep(tmp_path, [MadeTask(name="one"), MadeTask(name="two", metric="f1")])
        results, asked = watched(store)
        recommended = results.recommend().to_pylist()
        shown = {row["config_id"] for row in recommended} | {row["best_config_id"] for row in recommended}
        assert len(asked) == 1
        assert {trial_id.rpartition("-")[0] for trial_id in asked[0]} == shown
        assert len(asked[0]) == 3 * len(shown) < 3 * 2 * len(SETTINGS)
        results.recommend()
        summary(results)  # what `adaptune status` shows
        assert len(asked) == 1

    def test_with_one_seed_has_no_interval(self, synthetic: Synthetic, made: Callable[..., Made]) -> None:
        rows, memory, _ = made(1)
        [row] = ask(synthetic, rows, memory).recommend().to_pylist()
        assert row["test_low"] is row["interval_over"] is row["difference_over"] is None


def watched(store: Store) -> tuple[Results, list[set[str]]]:
    """Results of a store, and the trials whose predictions they read, a set a request."""
    results = results_of(store)
    asked: list[set[str]] = []
    read = store.predictions

    def noted(trainings: Mapping[str, str | None], split: str | None = None) -> dict[str, pa.Table]:
        asked.append(set(trainings))
        return read(trainings, split)

    store.predictions = noted  # type: ignore[method-assign]
    return results, asked


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep on a task of classes, one of numbers and one without predictions."""
    tasks = [MadeTask(name="topics", classes=4), MadeTask(name="alike", metric="pearson")]
    return results_of(write_sweep(tmp_path_factory.mktemp("made"), [*tasks, MadeTask(name="old", keeps=False)]))


@pytest.mark.parametrize("metric", ["micro_f1", "multilabel_macro_f1", "subset_accuracy"])
def test_a_row_of_several_labels_is_one_row(metric: str, tmp_path: Path) -> None:
    results = results_of(write_sweep(tmp_path, [MadeTask(name="moods", metric=metric, classes=12)]))
    row = on_task(results)
    best = {found["method"]: found["config_id"] for found in results.best().to_pylist()}
    trials = results.trials().to_pylist()
    outcomes, models = {}, {}
    for method in ("adapter", "full_finetuning"):
        ids = [trial["trial_id"] for trial in trials if trial["config_id"] == best[method]]
        tables = [results.predictions(trial_id, "test").to_pylist() for trial_id in ids]
        labels, *predicted = (
            np.array([[label in each[name] for label in range(12)] for each in table])
            for name, table in [("label", tables[0]), *(("prediction", table) for table in tables)]
        )
        models[method] = np.ones(3) / 3, np.stack(predicted)
        outcomes[method] = np.stack([row_outcomes(metric, each, labels, None) for each in predicted])
    expected = intervals.difference_over_rows(outcomes["adapter"], outcomes["full_finetuning"])
    assert expected is not None
    assert row["interval_over"] == "seeds and rows"
    assert row["high"] - row["low"] == pytest.approx(np.subtract(*expected.interval()[::-1]))
    if metric != "subset_accuracy":
        rng = np.random.default_rng(0)
        assert row["p_rows"] == paired_p_value(metric, labels, *models.values(), None, rng=rng)


class TestCalibration:
    def test_is_of_the_best_of_each_group_where_classes_are_predicted(self, results: Results) -> None:
        rows = results.calibration().to_pylist()
        best = {row["config_id"]: row for row in results.best().to_pylist()}
        assert {row["task"] for row in rows} == {"topics"}
        assert {row["method"] for row in rows} == {"adapter", "full_finetuning", "layernorm"}
        for config_id in {row["config_id"] for row in rows}:
            own = [row for row in rows if row["config_id"] == config_id]
            rows_of_bins = [row["bin_rows"] for row in own]
            right = sum(row["bin_accuracy"] * row["bin_rows"] for row in own)
            assert sum(rows_of_bins) == own[0]["num_rows"] * own[0]["num_seeds"]
            assert right / sum(rows_of_bins) == pytest.approx(best[config_id]["test_mean"])
            assert [row["bin"] for row in own] == sorted({row["bin"] for row in own})

    def test_names_what_it_leaves_out(self, results: Results) -> None:
        told = missing_of(results.calibration())
        assert "adapter on old: no probabilities are kept of all its seeds" in told
        others = {row["task"] for row in results.best().to_pylist()} - {"topics"}
        assert {sentence.partition(" on ")[2].partition(":")[0] for sentence in told} == others

    def test_takes_other_groups_splits_and_bins(self, results: Results) -> None:
        rows = results.calibration("task", split="validation", num_bins=4, binning="equal_mass").to_pylist()
        assert [row["bin"] for row in rows] == [1, 2, 3, 4]
        assert {row["split"] for row in rows} == {"validation"}

    def test_names_every_fault_of_what_is_asked(self, results: Results) -> None:
        with pytest.raises(FaultsError) as refusal:
            results.calibration(split="tset", num_bins=0, binning="equal")  # type: ignore[arg-type]
        assert len(refusal.value.faults) == 3
        with pytest.raises(FaultsError, match="calibration"):
            results.calibration("metod")

    def test_is_refused_in_a_sentence_where_nothing_is_kept(
        self, synthetic: Synthetic, made: Callable[..., Made], tmp_path: Path
    ) -> None:
        rows, memory, _ = made()
        with pytest.raises(FaultsError, match="but these results were not loaded from a store") as refusal:
            synthetic.results(rows).calibration()
        assert len(refusal.value.faults) == 1
        memory.right = {}
        with pytest.raises(FaultsError, match="none are kept, because sweep synthetic says keep_predictions: false"):
            ask(synthetic, rows, memory).calibration()
        kinds = [MadeTask(name="alike", metric="pearson"), MadeTask(name="moods", metric="micro_f1", classes=3)]
        numbers = results_of(write_sweep(tmp_path, kinds))
        with pytest.raises(FaultsError, match="needs a task with one class a row to predict, but this sweep has none"):
            numbers.calibration()
        assert synthetic.results([]).calibration().num_rows == 0


class TestOptimism:
    def test_is_the_gap_of_the_winner_beyond_that_of_all(self, synthetic: Synthetic) -> None:
        rows = [
            *({**row, "test_score": 0.9} for row in synthetic.scored(A, [0.94, 0.96])),
            *({**row, "test_score": 0.91} for row in synthetic.scored({**A, "adapter_size": 64}, [0.92, 0.92])),
            *synthetic.scored({**A, "adapter_size": 2}, [0.99]),  # of one seed, which does not compete
        ]
        [row] = synthetic.results(rows).optimism().to_pylist()
        assert (row["num_configs_tried"], row["num_compared"]) == (3, 2)
        assert (row["validation_mean"], row["test_mean"]) == pytest.approx((0.95, 0.9))
        assert (row["gap"], row["average_gap"], row["optimism"]) == pytest.approx((0.05, 0.03, 0.02))

    def test_a_task_without_test_scores_has_no_row(self, finished: Results) -> None:
        rows = finished.optimism(("task",)).to_pylist()
        assert [row["task"] for row in rows] == ["corporate_messaging", "sms_spam", "trec"]
        with pytest.raises(FaultsError, match="optimism"):
            finished.optimism("metod")


def test_folds_are_paired_row_by_row_and_widened(synthetic: Synthetic, made: Callable[..., Made]) -> None:
    rows, memory, sides = made(6)
    plain = synthetic.results(rows).trials().drop_columns(["seed", "fold"])
    seeds, folds = [row["seed"] // 3 for row in rows], [row["seed"] % 3 for row in rows]  # two seeds on three folds
    trials = plain.append_column("seed", pa.array(seeds)).append_column("fold", pa.array(folds))
    results = Results(trials, pa.table({}), predictions=memory)
    row = on_task(results)
    differences = sides["a"].astype(float) - sides["b"]
    by_fold = np.stack([differences[fold::3].mean(axis=0) for fold in range(3)])
    expected = intervals.estimate_over_rows(by_fold, 3)
    assert expected is not None
    assert row["interval_over"] == "folds (corrected) and rows"
    assert (row["low"], row["high"]) == pytest.approx(expected.interval())
    unwidened = intervals.estimate_over_rows(by_fold)
    assert unwidened is not None
    assert expected.standard_error > unwidened.standard_error
    (chosen,) = results.recommend().to_pylist()
    side = sides["a" if chosen["method"] == "adapter" else "b"]
    alone = intervals.estimate_over_rows(np.stack([side[fold::3].mean(axis=0) for fold in range(3)]), 3)
    assert alone is not None
    assert (chosen["test_low"], chosen["test_high"]) == pytest.approx(alone.interval())
    # One side lacks a fold: the others are held against each other, and no model against that of another fold.
    lacking = Results(trials.slice(1), pa.table({}), predictions=memory)
    lacked = np.stack([differences[3], differences[1::3].mean(axis=0), differences[2::3].mean(axis=0)])
    without = intervals.estimate_over_rows(lacked, 3)
    assert without is not None
    found = on_task(lacking)
    assert found["high"] - found["low"] == pytest.approx(np.ptp(without.interval()))
