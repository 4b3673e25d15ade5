from __future__ import annotations

import dataclasses

import pytest

from orchestrator.analysis.configurations import Configuration, SeedSummary, contenders, higher_is_better
from trainables import metrics
from trainables.faults import FaultsError


def configuration(name: str, *scores: float, size: int | None = 100, metric: str = "accuracy") -> Configuration:
    mean = sum(scores) / len(scores) if scores else 0.0
    validation = SeedSummary(mean=mean, sem=None, num_seeds=len(scores), scores=scores) if scores else None
    return Configuration(
        config_id=name,
        task="trec",
        backbone="minilm",
        method="adapter",
        hyperparameters={},
        metric=metric,
        validation=validation,
        test=None,
        num_trials=3,
        num_failed=3 - len(scores),
        trained_params=size,
        trained_params_without_head=size,
        total_params=1000,
    )


def names(*configurations: Configuration) -> list[str]:
    return [c.config_id for c in contenders(configurations)]


def test_contenders_come_best_first() -> None:
    assert names(configuration("low", 0.7), configuration("high", 0.9), configuration("middle", 0.8)) == [
        "high",
        "middle",
        "low",
    ]


def test_a_single_lucky_seed_does_not_compete_with_covered_configurations() -> None:
    assert names(configuration("lucky", 0.99), configuration("covered", 0.8, 0.8, 0.8)) == ["covered"]


def test_ties_go_to_fewer_trained_parameters_and_then_to_the_smaller_config_id() -> None:
    large, small = configuration("a", 0.9, size=200), configuration("z", 0.9, size=50)
    twin, unknown = configuration("b", 0.9, size=50), configuration("0", 0.9, size=None)
    assert names(large, small, twin, unknown) == ["b", "z", "a", "0"]


def test_without_a_completed_trial_there_is_no_contender() -> None:
    assert names(configuration("failed")) == []
    assert names() == []


def test_where_less_is_better_the_lowest_score_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    error = dataclasses.replace(metrics.get("accuracy"), name="error_rate", mode="min")
    monkeypatch.setitem(metrics.METRICS, "error_rate", error)
    assert not higher_is_better("error_rate")
    assert names(configuration("bad", 0.4, metric="error_rate"), configuration("good", 0.1, metric="error_rate")) == [
        "good",
        "bad",
    ]


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FaultsError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        higher_is_better("acuracy")
