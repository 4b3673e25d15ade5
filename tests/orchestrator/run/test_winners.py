"""Whose weights a running sweep keeps: always those that are chosen in the end, and never many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.analysis.results import Results
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run import winners as winners_module
from orchestrator.run.winners import Winners
from orchestrator.store.curves import epochs_table
from orchestrator.store.rows import table_from_records
from tests.factories import planned_trial, trial_config, trial_record

SEEDS = 3


def record(
    method: str, number: int, seed: int, score: float, params: int, *, task: str = "t", metric: str = "accuracy"
) -> TrialRecord:
    config = trial_config(method, task=task, backbone="b", seed=seed, method_options={})
    name = f"{task}-{method}-{number}"
    trial = planned_trial(f"{name}-{seed}", config, config_id=name)
    return trial_record(trial, TrialStatus.COMPLETED, metric=metric, validation_score=score, trained_params=params)


def sweep(rng: np.random.Generator, *, metric: str) -> list[TrialRecord]:
    """Two methods of twelve configurations each, of four sizes, with scores that often tie and some failed seeds."""
    found = []
    for method in ("adapter", "layernorm"):
        for number in range(12):
            size = int(rng.integers(1, 5))
            mean = 0.6 + 0.05 * size + rng.normal(0, 0.05)
            for seed in range(SEEDS):
                score = float(np.round(mean + rng.normal(0, 0.03), 2))
                made = record(method, number, seed, score, 1000 * size, metric=metric)
                if rng.random() < 0.05:
                    made = dataclasses.replace(made, status=TrialStatus.FAILED, validation_score=None)
                found.append(made)
    return found


def asked(records: Sequence[TrialRecord]) -> set[str]:
    """The trials that `best` and `recommend` choose, by the rule that the best seed stands for a configuration."""
    table = table_from_records(records)
    results = Results(table, epochs_table(table))
    chosen = set(results.best()["config_id"].to_pylist()) | set(results.recommend()["config_id"].to_pylist())
    for method in ("adapter", "layernorm"):
        of_method = table_from_records([r for r in records if r.method == method])
        chosen |= set(Results(of_method, epochs_table(of_method)).recommend()["config_id"].to_pylist())
    sign = -1 if records[0].metric == "perplexity" else 1
    found = set()
    for config_id in chosen:
        scored = [r for r in records if r.config_id == config_id and r.status is TrialStatus.COMPLETED]
        best = max(scored, key=lambda r: (sign * (r.validation_score or 0), -r.seed))
        found.add(best.trial_id)
    return found


@pytest.mark.parametrize("draw", range(8))
@pytest.mark.parametrize("order", ["seeds first", "shuffled a little"])
def test_what_is_chosen_in_the_end_has_never_been_let_go(draw: int, order: str) -> None:
    rng = np.random.default_rng(draw)
    records = sweep(rng, metric="accuracy")
    if order != "seeds first":  # as engines end them
        places = np.argsort(np.arange(len(records)) + rng.uniform(0, 10, len(records)), kind="stable")
        records = [records[place] for place in places]
    winners, kept = Winners("best", SEEDS), set[str]()
    for each in records:
        winners.add([each])
        wanted = winners.to_keep()
        kept = (kept | {each.trial_id}) & wanted
        assert kept <= wanted
    assert winners.chosen() == asked(records)
    assert winners.chosen() <= kept
    again = Winners("best", SEEDS)  # as a resumed sweep finds it
    again.add(reversed(records))
    again.add(records)
    assert again.to_keep() == winners.to_keep()


def test_limits_hold_and_never_let_the_best_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winners_module, "MOST_CONFIGURATIONS", 4)
    monkeypatch.setattr(winners_module, "MOST_BYTES", 3 * 4 * 1000)
    winners = Winners("best", 2)
    winners.add([record("adapter", number, 0, 0.5 + number / 100, 1000) for number in range(20)])
    assert winners.to_keep() == {f"t-adapter-{number}-0" for number in (17, 18, 19)}
    winners.add([record("adapter", number, 1, 0.5 + number / 100, 1000) for number in range(20)])
    assert winners.to_keep() == {"t-adapter-19-0"}  # equal seeds: the smaller one
    winners.add([record("full_finetuning", 0, seed, 0.9, 10**6) for seed in (1, 0)])
    assert "t-full_finetuning-0-0" in winners.to_keep()  # larger than the limit, and alone


def test_all_keeps_every_completed_trial_and_tasks_are_apart() -> None:
    failed = dataclasses.replace(record("adapter", 2, 0, 0, 1), status=TrialStatus.FAILED, validation_score=None)
    some = [record("adapter", 0, 0, 0.1, 1), record("adapter", 1, 0, 0.2, 1), failed]
    winners = Winners("all", 1)
    winners.add(some)
    assert winners.to_keep() == winners.chosen() == {"t-adapter-0-0", "t-adapter-1-0"}
    best = Winners("best", 1)
    best.add([*some, record("adapter", 0, 0, 0.1, 1, task="u")])
    assert best.chosen() == {"t-adapter-1-0", "u-adapter-0-0"}
