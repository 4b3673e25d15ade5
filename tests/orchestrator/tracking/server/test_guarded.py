"""A server that asks for a password, and is away when sweeps start, in their middle, or until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.tracking import Tracker
from tests.orchestrator.tracking.server.conftest import Server
from tests.orchestrator.tracking.server.test_server import COMPLETED, MakeEpoch, MakeRecord, Plan, Start, points, shown

pytestmark = [pytest.mark.chaos, pytest.mark.minutes, pytest.mark.timeout(600)]
PASSWORD = "a-long-password-of-a-test"


@pytest.fixture(scope="module")
def server(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Not started."""
    folder = tmp_path_factory.mktemp("guarded")
    guarded = Server(postgres.uri if postgres else f"sqlite:///{folder}/mlflow.db", folder, PASSWORD)
    yield guarded
    guarded.kill()


@pytest.fixture
def _knows_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


def wait_until(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)


@pytest.mark.usefixtures("_knows_the_password")
def test_sweeps_fill_what_a_guarded_server_missed_at_their_start_in_their_middle_and_to_their_end(
    server: Server, track: Start, planned: Plan, record: MakeRecord, epoch: MakeEpoch, caplog: pytest.LogCaptureFixture
) -> None:
    def train(tracker: Tracker, sweep: str, trial_id: str) -> None:
        tracker.trial_started(planned(trial_id))
        for number in (1, 2):
            tracker.epoch(trial_id, epoch(number))
        tracker.trial_ended(record(trial_id, sweep=sweep))

    names = ("away at the start", "away in the middle", "away to the end")
    at_start = track(names[0])
    train(at_start, names[0], "before")
    wait_until(lambda: "the sweep goes on" in caplog.text)
    server.start()
    middle, to_end = track(names[1]), track(names[2])
    for name, tracker in zip(names, (at_start, middle, to_end), strict=True):
        train(tracker, name, "a")
    wait_until(lambda: all("a" in runs_of(server, name) for name in names))
    server.kill()
    for name, tracker in zip(names[1:], (middle, to_end), strict=True):
        train(tracker, name, "b")
    assert not to_end.close(COMPLETED, timeout_s=2)
    server.start()
    assert at_start.close(COMPLETED, timeout_s=200)
    assert middle.close(COMPLETED, timeout_s=200)
    assert not {"b"} & runs_of(server, names[2]).keys()  # until the sweep is resumed
    resumed = track(names[2])
    resumed.refill([record(trial_id, sweep=names[2]) for trial_id in ("a", "b")], planned={"a", "b"})
    assert resumed.close(COMPLETED, timeout_s=200)
    for name, trials in zip(names, ({"before", "a"}, {"a", "b"}, {"a", "b"}), strict=True):
        parent, runs = shown(server, name)
        assert parent.info.status == "FINISHED"
        assert {trial_id: run.info.status for trial_id, run in runs.items()} == dict.fromkeys(trials, "FINISHED")
        for run in runs.values():
            assert [step for step, _ in points(server, run, "validation_score")] == [1, 2]
    assert PASSWORD not in caplog.text


def runs_of(server: Server, name: str) -> Any:
    try:
        return shown(server, name)[1]
    except (AssertionError, ValueError):  # nothing of it is there yet
        return {}


def test_whoever_has_no_password_is_told_so_and_sees_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MlflowException, match="401"):
        shown(server, "away to the end")
