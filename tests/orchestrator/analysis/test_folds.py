"""Results of tasks that are cut into folds: what is a replicate, what is paired, and what is said of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from scipy.stats import t as student

from orchestrator.analysis.configurations import SeedSummary, best_replicate, group_by_configuration
from orchestrator.analysis.paper.methods_paragraph import methods_paragraph
from orchestrator.analysis.replicates import difference, estimate
from orchestrator.analysis.report import _protocol
from orchestrator.analysis.results import Results
from orchestrator.analysis.statistics import intervals
from orchestrator.analysis.text import tables, wording

ADAPTER = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}
FULL = {"method": "full_finetuning", "learning_rate": 1e-4}
OURS = [0.90, 0.84, 0.93, 0.88, 0.86, 0.91, 0.85, 0.92, 0.90, 0.84]
THEIRS = [0.88, 0.83, 0.90, 0.87, 0.83, 0.90, 0.82, 0.91, 0.86, 0.84]


def summary(scores: Sequence[float], folds: int | None = 5) -> SeedSummary:
    """Of seeds 0, 1, ... on each fold."""
    replicates = tuple((index // (folds or 1), index % folds if folds else -1) for index in range(len(scores)))
    return SeedSummary(scores=tuple(scores), mean=float(np.mean(scores)), replicates=replicates, num_folds=folds)


@pytest.fixture
def folded(synthetic: Any) -> Results:
    """Two methods with two seeds on five folds of trec; one training of one of them has failed."""
    rows = []
    for options, scores in ((ADAPTER, OURS), (FULL, THEIRS)):
        for index, row in enumerate(synthetic.scored(options, scores)):
            which = {"seed": index // 5, "fold": index % 5, "trial_id": f"{options['method']} {index}"}
            rows.append({**row, **which})
    rows = [row for row in rows if row["trial_id"] != "full_finetuning 9"]
    trials = synthetic.results(rows).trials().drop_columns(["fold"])
    return Results(trials.append_column("fold", pa.array([row["fold"] for row in rows])), pa.table({}))


def by_fold(scores: Any) -> list[float]:
    """Of seeds 0, 1, ... on five folds the mean of each fold."""
    return [float(np.mean(scores[fold::5])) for fold in range(min(5, len(scores)))]


class TestTheCorrectedStandardError:
    def test_it_is_nadeaus_and_bengios(self) -> None:
        found = intervals.corrected_over_folds(OURS, 5)
        assert found is not None
        error = math.sqrt((1 / 10 + 1 / 4) * np.var(OURS, ddof=1))
        assert (found.mean, found.standard_error) == (pytest.approx(np.mean(OURS)), pytest.approx(error))
        assert found.interval() == pytest.approx(student(9, np.mean(OURS), error).interval(0.95))
        assert error > float(np.std(OURS, ddof=1)) / math.sqrt(10)

    def test_one_score_has_none_and_one_fold_is_no_fold(self) -> None:
        assert intervals.corrected_over_folds([0.9], 5) is None
        with pytest.raises(ValueError, match="num_folds: must be at least 2"):
            intervals.corrected_over_folds(OURS, 1)

    def test_it_covers_the_truth_where_the_plain_one_does_not(self) -> None:
        """Scores of five folds that correlate by 1/5, as the correction takes it."""
        rng = np.random.default_rng(0)
        scores = math.sqrt(0.2) * rng.normal(size=(2000, 1)) + math.sqrt(0.8) * rng.normal(size=(2000, 5))
        covered = {"plain": 0, "corrected": 0}
        for each in scores:
            corrected, plain = intervals.corrected_over_folds(each, 5), intervals.t_interval(each)
            assert corrected is not None
            assert plain is not None
            low, high = corrected.interval()
            covered["corrected"] += low <= 0 <= high
            covered["plain"] += plain[0] <= 0 <= plain[1]
        assert 0.94 < covered["corrected"] / 2000 < 0.96
        assert covered["plain"] / 2000 < 0.90

    def test_seeds_that_train_the_same_model_add_no_certainty(self) -> None:
        once, thrice = OURS[:5], OURS[:5] * 3
        assert estimate(summary(thrice))[0].interval() == pytest.approx(estimate(summary(once))[0].interval())  # type: ignore[union-attr]
        several, one = (
            difference(summary(thrice), summary([0.8] * 15), 1.0),
            difference(summary(once), summary([0.8] * 5), 1.0),
        )
        assert several[0].interval() == pytest.approx(one[0].interval())  # type: ignore[union-attr]
        assert estimate(summary(OURS[:1]))[0] is None


class TestADifference:
    def test_folds_are_paired_by_seed_and_fold(self) -> None:
        found, over = difference(summary(OURS), summary(THEIRS), 1.0)
        assert over == "folds (corrected)"
        assert found is not None
        expected = intervals.corrected_over_folds(by_fold(np.subtract(OURS, THEIRS)), 5)
        assert found.interval() == pytest.approx(expected.interval())  # type: ignore[union-attr]
        ours, theirs = summary(OURS), summary(THEIRS[:7])  # what one side lacks is left out
        found, _ = difference(ours, theirs, -1.0)
        assert found is not None
        assert found.mean == pytest.approx(np.mean(np.subtract(THEIRS[:7], OURS[:7])))
        expected = intervals.corrected_over_folds(by_fold(np.subtract(THEIRS[:7], OURS[:7])), 5)
        assert found.standard_error == pytest.approx(expected.standard_error)  # type: ignore[union-attr]
        assert difference(summary(OURS[:1]), summary(THEIRS), 1.0)[0] is None

    def test_seeds_are_not(self) -> None:
        found, over = difference(summary(OURS, None), summary(THEIRS, None), 1.0)
        assert (found, over) == (intervals.welch(OURS, THEIRS), "seeds")
        single, over = estimate(summary(OURS, None))
        assert single is not None
        assert (single.interval(), over) == (pytest.approx(intervals.t_interval(OURS)), "seeds")
        assert estimate(summary([0.9], None)) == (None, "seeds")


def test_replicates_are_seeds_on_folds_in_their_order(folded: Results) -> None:
    shuffled = folded.trials().take([12, 3, 0, *range(13, 19), *range(4, 12), 1, 2])
    full, adapter = sorted(group_by_configuration(shuffled), key=lambda c: c.num_trials)
    assert adapter.validation == summary(OURS)
    assert full.validation is not None
    assert (full.validation.num_seeds, full.validation.num_folds, full.validation.replicates[-1]) == (9, 5, (1, 3))
    assert best_replicate({(1, 0): 0.9, (0, 4): 0.9, (0, 3): 0.8}, "accuracy") == (0, 4)


def test_folds_without_a_trial_yet_are_folds_too(folded: Results) -> None:
    trials = folded.trials().filter(pa.compute.less(folded.trials()["fold"], 2)).drop_columns(["provenance"])
    told = pa.array([{"folds": "5"}] * len(trials), pa.struct({"folds": pa.string()}))
    results = Results(trials.append_column("provenance", told), pa.table({}))
    assert {row["num_folds"] for row in results.best().to_pylist()} == {5}
    assert "There were 5 folds of trec" in methods_paragraph(results)


def test_answers_count_pair_and_name_folds(folded: Results) -> None:
    (adapter, full) = folded.best().to_pylist()
    assert (adapter["num_seeds"], adapter["num_folds"]) == (10, 5)
    assert adapter["test_sem"] == pytest.approx(np.std(OURS, ddof=1) / math.sqrt(10))
    assert (full["num_seeds"], full["num_folds"]) == (9, 5)
    row, overall = folded.compare("adapter", "full_finetuning").to_pylist()
    expected = intervals.corrected_over_folds(by_fold(np.subtract(OURS[:9], THEIRS[:9])), 5)
    assert expected is not None
    assert row["interval_over"] == "folds (corrected)"
    assert row["high"] - row["low"] == pytest.approx(expected.interval()[1] - expected.interval()[0])
    assert "with 10 replicates (2 seeds on each of 5 folds)" in overall["note"]
    assert "with 9 replicates" in overall["note"]
    (chosen,) = folded.recommend().to_pylist()
    assert chosen["interval_over"] == "folds (corrected)"
    assert (chosen["test_low"], chosen["test_high"]) == pytest.approx(
        intervals.corrected_over_folds(by_fold(np.subtract(OURS, 0.1)), 5).interval()  # type: ignore[union-attr]
    )


def test_the_report_and_the_paper_say_that_folds_share_rows(folded: Results) -> None:
    text = methods_paragraph(folded)
    for words in (
        "with 2 seeds (0, 1) on each of 5 folds",
        "There were 5 folds of trec: train and validation rows were put together",
        "best mean validation score over seeds and folds",
        "this standard error is too small, and there is no unbiased one (Bengio and Grandvalet, 2004)",
        "corrected resampled t-test (Nadeau and Bengio, 2003)",
    ):
        assert words in text, words
    assert "n counts folds on trec, and standard errors over folds are too small." in str(
        tables.best_table(folded.best(), []).note
    )
    said = _protocol(folded, folded.best())
    assert "There were 5 folds of trec" in said
    assert "a standard error over folds is too small" in said


@pytest.mark.parametrize(
    ("number", "folds", "words"),
    [
        (3, None, "3 seeds"),
        (5, 5, "5 folds"),
        (15, 5, "15 replicates (3 seeds on each of 5 folds)"),
        (14, 5, "14 replicates"),
        (1, 5, "1 replicate"),
    ],
)
def test_what_a_mean_is_over_in_words(number: int, folds: int | None, words: str) -> None:
    assert wording.replicates(number, folds) == words
    assert wording.over([{"num_seeds": number, "num_folds": folds}]) == words
