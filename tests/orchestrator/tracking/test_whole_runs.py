"""Many ended runs written to MLflow at once, and a sweep that is faster than MLflow."""

from __future__ import annotations

import dataclasses
import math
import time

import pytest

from orchestrator.record import TrialStatus

# MLflow still uses a loader strategy that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

COMPLETED = TrialStatus.COMPLETED


def wait_until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.mark.parametrize(("writes_whole_runs", "requests"), [(False, ["create", "log", "end"] * 2), (True, ["insert"])])
def test_short_trials_cost_three_requests_each_or_one_in_all(
    start, window, planned, record, epoch, writes_whole_runs, requests
):
    window.writes_whole_runs = writes_whole_runs
    tracker = start(flush_interval_s=30)
    wait_until(lambda: "log_text" in window.requests)
    window.requests.clear()
    for trial_id in ("a", "b"):
        tracker.trial_started(planned(trial_id))
        tracker.epoch(trial_id, epoch(1))
        tracker.trial_ended(record(trial_id))
    assert tracker.close(COMPLETED)
    assert window.requests == [*requests, "log", "end"]


def test_a_run_written_whole_is_the_run_that_mlflow_s_own_client_writes(start, window, planned, record, epoch, look):
    odd = {"accuracy": math.nan, "loss": math.inf}
    endings = [
        {"status": "completed"},
        {"status": "failed", "error": "Traceback", "epochs": (), "validation_score": None, "test_score": math.nan},
        {"status": "pruned", "test": {}, "test_score": None, "validation": odd},
        {"status": "cancelled", "started_at": None, "duration_s": None, "provenance": {}},
    ]
    seen = {}
    for writes_whole_runs in (True, False):
        window.writes_whole_runs = writes_whole_runs
        tracker = start(flush_interval_s=30)
        wait_until(lambda tracker=tracker: tracker.is_open)
        ids = [f"{number}-{writes_whole_runs}" for number in range(len(endings))]
        for trial_id, ending in zip(ids, endings, strict=True):
            tracker.trial_ended(record(trial_id, **ending))
        assert tracker.close(COMPLETED)
        seen[writes_whole_runs] = [look()[1][trial_id] for trial_id in ids]
    for whole, single, ending in zip(seen[True], seen[False], endings, strict=True):
        times_are_known = ending["status"] != "cancelled"  # else they are when the run was written
        assert _shown(whole, times_are_known) == _shown(single, times_are_known)
        assert (whole.end_ms or 0) > 0


def _shown(run, times_are_known):
    """What a run shows beside its own ids, as text, since NaN equals nothing."""
    own = ("adaptune.trial_id", "adaptune.config_id")
    fields = {**dataclasses.asdict(run), "tags": {key: value for key, value in run.tags.items() if key not in own}}
    del fields["run_id"]
    if not times_are_known:
        del fields["start_ms"], fields["end_ms"]
    return {name: repr(sorted(value.items()) if isinstance(value, dict) else value) for name, value in fields.items()}


def test_a_sweep_that_is_faster_than_mlflow_waits_for_it(start, window, record, look):
    tracker = start(flush_interval_s=30, most_waiting=3)
    most = 0
    for number in range(20):
        tracker.trial_ended(record(str(number)))
        most = max(most, tracker.num_waiting)
    assert most <= 3
    assert tracker.close(COMPLETED)
    assert len(look()[1]) == 20


def test_a_sweep_does_not_wait_for_an_mlflow_that_is_away(start, window, record, look):
    window.is_down = True
    tracker = start(flush_interval_s=0.01, most_waiting=3)
    wait_until(lambda: tracker.is_away)
    for number in range(20):
        tracker.trial_ended(record(str(number)))
    assert tracker.num_waiting == 20
    window.is_down = False
    assert tracker.close(COMPLETED)
    assert len(look()[1]) == 20
