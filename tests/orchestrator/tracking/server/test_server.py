"""Against a real MLflow server: requests are counted by its own log, runs read back through MLflow's own client."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking import TaskData, Tracker
from orchestrator.tracking.tracker import Patience
from trainables.outcome import EpochReport

# A server takes ten seconds to start, and longer on a busy machine.
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(240)]

COMPLETED = TrialStatus.COMPLETED
Start = Callable[..., Tracker]
Plan = Callable[[str], PlannedTrial]
MakeRecord = Callable[..., TrialRecord]
MakeEpoch = Callable[[int], EpochReport]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def shown(server: Any, sweep: str) -> tuple[Any, Mapping[str, Any]]:
    """The sweep's run and the trials' by trial_id; there is one sweep's run, and no trial has two."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (parent,) = [run for run in runs if run.data.tags["adaptune.kind"] == "sweep"]
    trials = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} <= {parent.info.run_id}
    by_trial = {run.data.tags["adaptune.trial_id"]: run for run in trials}
    assert len(by_trial) == len(trials)
    return parent, by_trial


def points(server: Any, run: Any, key: str) -> list[tuple[int, float]]:
    from mlflow.tracking.client import MlflowClient

    history = MlflowClient(tracking_uri=server.uri).get_metric_history(run.info.run_id, key)
    return [(metric.step, metric.value) for metric in history]


def test_a_sweep_is_shown_by_a_tracking_server(
    server: Any, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    tracker = track("whole")
    tracker.trial_started(planned("a"))
    for number in (1, 2):
        tracker.epoch("a", epoch(number))
    tracker.trial_ended(record("a"))
    tracker.trial_ended(record("b", "failed", error="Traceback", epochs=()))
    tracker.trial_started(planned("c"))
    assert tracker.close(COMPLETED)
    parent, runs = shown(server, "whole")
    assert parent.info.status == "FINISHED"
    assert {trial_id: run.info.status for trial_id, run in runs.items()} == {
        "a": "FINISHED",
        "b": "FAILED",
        "c": "KILLED",
    }
    assert runs["a"].data.params["adapter_size"] == "64"
    assert points(server, runs["a"], "validation_score") == [(1, 0.1), (2, 0.2)]
    assert points(server, runs["a"], "test/accuracy") == [(2, 0.25)]


def test_trials_that_end_between_two_flushes_cost_three_requests_each(
    server: Any, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    tracker = track("cheap", patience=Patience(flush_interval_s=60))
    wait_until(lambda: server_holds(server, "cheap"))
    before = server.requests()
    for number in range(20):
        tracker.trial_started(planned(f"t{number}"))
        tracker.epoch(f"t{number}", epoch(1))
        tracker.trial_ended(record(f"t{number}"))
    assert tracker.close(COMPLETED)
    cost = server.requests() - before
    assert cost.total() <= 20 * 3 + 2, cost  # and the sweep's own end, in two
    assert len(shown(server, "cheap")[1]) == 20


def test_trials_that_live_for_several_flushes_cost_one_more_for_each(
    server: Any, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    interval_s = 0.25
    tracker = track("long", patience=Patience(flush_interval_s=interval_s))
    wait_until(lambda: server_holds(server, "long"))
    before, began = server.requests(), time.monotonic()
    for trial_id in ("a", "b"):
        tracker.trial_started(planned(trial_id))
    for number in range(1, 31):  # many more epochs than flushes
        for trial_id in ("a", "b"):
            tracker.epoch(trial_id, epoch(number))
        time.sleep(0.05)
    for trial_id in ("a", "b"):
        tracker.trial_ended(record(trial_id, epochs=tuple(epoch(number) for number in range(1, 31))))
    assert tracker.close(COMPLETED)
    flushes = math.ceil((time.monotonic() - began) / interval_s) + 1
    cost = server.requests() - before
    assert cost.total() <= 2 * (3 + flushes) + 2, (cost, flushes)
    for run in shown(server, "long")[1].values():
        assert [step for step, _ in points(server, run, "validation_score")] == list(range(1, 31))


def test_a_configuration_costs_four_requests_whatever_its_seeds(
    server: Any, track: Start, planned: Plan, record: MakeRecord
) -> None:
    data = TaskData(task="trec", reference="/data/trec", fingerprint="f" * 64, rows={"train": 5})
    spec = '{"name": "nested", "seeds": [0, 1, 2, 3]}'
    tracker = track("nested", spec_json=spec, data=[data], patience=Patience(flush_interval_s=60))
    wait_until(lambda: server_holds(server, "nested"))
    before = server.requests()
    for number in range(20):
        config_id, seed = f"c{number // 4}", number % 4
        tracker.trial_ended(record(f"{config_id}-{seed}", config_id=config_id, seed=seed, sweep="nested"))
    assert tracker.close(COMPLETED)
    cost = server.requests() - before
    assert cost.total() <= 20 * 3 + 5 * 4 + 2, cost  # the trials', the configurations' and the sweep's own end
    configurations = runs_of_kind(server, "nested", "configuration")
    assert {run.data.tags["adaptune.config_id"] for run in configurations} == {f"c{number}" for number in range(5)}
    assert {run.info.status for run in configurations} == {"FINISHED"}
    assert {run.data.metrics["num_seeds"] for run in configurations} == {4}
    assert {run.inputs.dataset_inputs[0].dataset.digest for run in configurations} == {"f" * 12}
    above = {run.info.run_id for run in configurations}
    trials = runs_of_kind(server, "nested", "trial")
    assert len(trials) == 20
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == above


def runs_of_kind(server: Any, sweep: str, kind: str) -> list[Any]:
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`adaptune.kind` = '{kind}'", max_results=1000))


def server_holds(server: Any, sweep: str) -> bool:
    """Whether a sweep's run is there and its spec among the artifacts: the tracker has nothing more to say."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(sweep)
    wanted = "tags.`adaptune.kind` = 'sweep'"
    parents = client.search_runs([experiment.experiment_id], wanted) if experiment else []
    return bool(parents) and bool(client.list_artifacts(parents[0].info.run_id))


def test_concurrent_sweeps_keep_apart(
    server: Any, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch
) -> None:
    names = ("first", "second", "third")
    complete: dict[str, bool] = {}

    def sweep(name: str) -> None:
        tracker = track(name)
        for number in range(6):
            trial_id = f"t{number}"  # the same ids in each: two sweeps may plan the same trial
            tracker.trial_started(planned(trial_id))
            tracker.epoch(trial_id, epoch(1))
            time.sleep(0.03)
            tracker.epoch(trial_id, epoch(2))
            tracker.trial_ended(record(trial_id, sweep=name))
        complete[name] = tracker.close(COMPLETED)

    threads = [threading.Thread(target=sweep, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert complete == dict.fromkeys(names, True)
    for name in names:
        parent, runs = shown(server, name)
        assert parent.info.status == "FINISHED"
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert runs.keys() == {f"t{number}" for number in range(6)}
        assert all(points(server, run, "validation_score") == [(1, 0.1), (2, 0.2)] for run in runs.values())


class Sweeps:
    """Sweeps that train the same trials at the same time, each with a tracker of its own."""

    def __init__(self, trackers: Mapping[str, Tracker], planned: Plan, record: MakeRecord, epoch: MakeEpoch) -> None:
        self._trackers = trackers
        self._planned, self._record, self._epoch = planned, record, epoch

    def begin(self, trial_id: str) -> None:
        for tracker in self._trackers.values():
            tracker.trial_started(self._planned(trial_id))
            tracker.epoch(trial_id, self._epoch(1))

    def end(self, trial_id: str) -> None:
        for name, tracker in self._trackers.items():
            tracker.epoch(trial_id, self._epoch(2))
            tracker.trial_ended(self._record(trial_id, sweep=name))


@pytest.mark.chaos
def test_sweeps_outlive_an_outage_and_fill_the_gap(
    outage: Any,
    server: Any,
    track: Start,
    planned: Plan,
    record: MakeRecord,
    epoch: MakeEpoch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    """Two sweeps go on while nothing answers; afterwards each trial has one run, with every point once."""
    trackers = {name: track(name) for name in (f"{each} {request.node.name}" for each in ("one", "other"))}
    sweeps = Sweeps(trackers, planned, record, epoch)
    for trial_id in ("before", "across", "running"):
        sweeps.begin(trial_id)
    sweeps.end("before")
    wait_until(lambda: all(server_holds(server, name) for name in trackers))
    wait_until(lambda: all(shown(server, name)[1].keys() >= {"before", "across", "running"} for name in trackers))
    sweeps.begin("cut short")  # noted at the moment of the outage: on its way, there, or lost
    outage.begin()
    sweeps.end("across")
    sweeps.begin("during")
    sweeps.end("during")
    sweeps.end("cut short")
    wait_until(lambda: caplog.text.count("the sweep goes on") == 2)
    outage.end()
    sweeps.begin("after")
    sweeps.end("after")
    assert [tracker.close(COMPLETED) for tracker in trackers.values()] == [True, True]
    ended = dict.fromkeys(("before", "across", "cut short", "during", "after"), "FINISHED")
    for name in trackers:
        parent, runs = shown(server, name)
        assert parent.info.status == "FINISHED"
        assert {trial_id: run.info.status for trial_id, run in runs.items()} == {**ended, "running": "KILLED"}
        for trial_id, run in runs.items():
            expected = [(1, 0.1)] if trial_id == "running" else [(1, 0.1), (2, 0.2)]
            assert points(server, run, "validation_score") == expected, (name, trial_id)
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert len(warnings) == 2, warnings  # one for each sweep, however often it was tried
