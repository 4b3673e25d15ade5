"""What Tune is told of a source of trials, and when."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from orchestrator.planning.plan import PlannedTrial, plan_sweep
from orchestrator.scheduling.loans import wants_of
from orchestrator.scheduling.proposals import Proposals
from orchestrator.scheduling.trial import Assignment
from orchestrator.trial_source import FixedTrials


class Room:
    """How many trials may be under way, and whether the end has come."""

    def __init__(self, concurrent: int) -> None:
        self.concurrent = concurrent
        self.has_ended = False
        self.handed_out: list[PlannedTrial] = []

    def proposals(self, trials: tuple[PlannedTrial, ...]) -> Proposals:
        return Proposals(
            FixedTrials(trials),
            lambda: self.concurrent,
            may_be_pruned=True,
            has_ended=lambda: self.has_ended,
            handed_out=self.handed_out.append,
        )


def test_no_more_trials_are_named_than_there_is_room_for(values: dict[str, Any]) -> None:
    trials, room = plan_sweep(values).trials, Room(2)
    proposals = room.proposals(trials)
    first, second, none = (proposals.suggest(name) for name in "abc")
    assert [first, second] == [
        {
            "trial_id": trial.trial_id,
            "task": trial.config.task,
            "backbone": trial.config.backbone,
            "method": trial.config.method,
            "fold": None,
            "assignment": Assignment(trial.config, trial.pack_key, wants_of(trial), True),
        }
        for trial in trials[:2]
    ]
    assert none is None
    proposals.on_trial_complete("a", error=True)
    assert proposals.suggest("c") is not None
    room.concurrent = 3  # an engine has joined
    assert proposals.suggest("d") is not None
    assert room.handed_out == list(trials[:4])


def test_nothing_is_named_once_all_trials_were_or_the_end_has_come(values: dict[str, Any]) -> None:
    trials, room = plan_sweep(values).trials[:1], Room(5)
    proposals = room.proposals(trials)
    assert proposals.suggest("a") is not None
    assert proposals.suggest("b") == Searcher.FINISHED
    interrupted = Room(5)
    proposals = interrupted.proposals(trials)
    interrupted.has_ended = True
    assert proposals.suggest("a") == Searcher.FINISHED
    assert interrupted.handed_out == []
