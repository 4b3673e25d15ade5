"""What a configuration's run says of its seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.record import TrialStatus
from orchestrator.tracking.configuration import Configuration
from orchestrator.tracking.run_fields import TrialFacts


@pytest.fixture
def shown(record):
    """`shown(*endings, num_seeds)`: what a configuration shows whose seeds ended so."""

    def make(*endings, num_seeds=3):
        records = [record(f"t{seed}", config_id="c", seed=seed, **ending) for seed, ending in enumerate(endings)]
        configuration = Configuration(facts=TrialFacts.of_record(records[0]))
        for each in records:
            configuration.add(each)
        return configuration.shown(num_seeds)

    return make


def scored(validation, test=None, **others):
    return {"validation_score": validation, "test_score": test, **others}


def values(shown) -> dict[str, float]:
    return {point.key: point.value for point in shown.points}


def test_means_and_standard_errors_are_numpy_s(shown):
    rng = np.random.default_rng(0)
    validation, test = rng.random(5), rng.random(5)
    found = values(shown(*map(scored, validation, test), num_seeds=5))
    for name, scores in (("validation_score", validation), ("test_score", test)):
        assert found[f"mean/{name}"] == pytest.approx(scores.mean(), abs=1e-12)
        assert found[f"sem/{name}"] == pytest.approx(scores.std(ddof=1) / math.sqrt(5), abs=1e-12)
    assert found["num_seeds"] == 5
    assert found["trained_params"] == 1234


def test_one_seed_has_a_mean_and_no_standard_error(shown):
    found = values(shown(scored(0.5)))
    assert (found["mean/validation_score"], found["num_seeds"]) == (0.5, 1)
    assert not {"sem/validation_score", "mean/test_score"} & set(found)


def test_only_completed_seeds_count(shown):
    one = shown(scored(0.5), scored(0.9, status="pruned"), scored(None, status="failed", error="boom"))
    assert (values(one)["mean/validation_score"], values(one)["num_seeds"]) == (0.5, 1)
    assert {point.step for point in one.points} == {1}
    assert "1 of 3 seeds completed: validation 0.5000" in one.tags["mlflow.note.content"]
    assert "| 1 | pruned | 0.9000 |" in one.tags["mlflow.note.content"]


def test_a_score_that_is_no_number_makes_no_number(shown):
    assert math.isnan(values(shown(scored(0.5), scored(math.nan)))["mean/validation_score"])


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["completed"] * 3, TrialStatus.COMPLETED),
        (["completed", "completed", "pruned"], TrialStatus.PRUNED),
        (["completed", "pruned", "cancelled"], TrialStatus.CANCELLED),
        (["completed", "completed"], TrialStatus.CANCELLED),  # of three
        (["completed", "cancelled", "failed"], TrialStatus.FAILED),
    ],
)
def test_it_ends_as_the_worst_of_its_seeds(shown, statuses, status):
    assert shown(*({"status": each} for each in statuses)).status is status


def test_equal_ends_show_the_same_whatever_their_order(record):
    records = [record(f"t{seed}", config_id="c", seed=seed, validation_score=seed / 10) for seed in range(3)]
    seen = []
    for order in (records, records[::-1]):
        configuration = Configuration(facts=TrialFacts.of_record(records[0]))
        for each in order:
            configuration.add(each)
        seen.append(configuration.shown(3))
    assert seen[0].tags == seen[1].tags


def test_a_trial_that_trains_again_has_not_ended(record):
    configuration = Configuration(facts=TrialFacts.of_record(record("a")))
    configuration.add(record("a", "failed", error="boom"))
    configuration.again("a")
    assert configuration.shown(1).status is TrialStatus.CANCELLED
    assert values(configuration.shown(1))["num_seeds"] == 0


def test_folds_are_replicates_with_a_column_of_their_own(record):
    """Of two seeds on three folds all but one have completed."""
    known = {"config_id": "c", "provenance": {"folds": "3"}, "validation_score": 0.5}
    records = [record(f"t{n}", seed=n // 3, fold=n % 3, **known) for n in range(5)]
    configuration = Configuration(facts=TrialFacts.of_record(records[0]))
    for each in records:
        configuration.add(each)
    assert not configuration.has_ended(2)
    note = configuration.shown(2).tags["mlflow.note.content"]
    assert "5 of 6 trials (2 seeds, 3 folds) completed" in note
    assert "| 1 | 1 | completed | 0.5000 |" in note
    assert not {"seed", "fold"} & configuration.params().keys()
    assert "3 of 3 folds completed" in _of(configuration, 3).shown(1).tags["mlflow.note.content"]


def _of(configuration: Configuration, number: int) -> Configuration:
    """With the first trials alone."""
    first = dict(list(configuration.ended.items())[:number])
    return Configuration(facts=configuration.facts, ended=first)
