"""A real MLflow database for each test, and a window whose requests can be made to fail."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking import Tracker
from orchestrator.tracking.runs import MlflowRuns
from orchestrator.tracking.tracker import Patience
from tests.factories import epoch_report, measured_record, planned_trial, trial_config
from trainables.outcome import EpochReport


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables; making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    window = MlflowRuns(f"sqlite:///{path}", "first")
    window.open()
    window.client.delete_experiment(window.experiment_id)
    return path


@pytest.fixture
def tracking_uri(empty_database: Path, tmp_path: Path) -> str:
    (tmp_path / "sweeps").mkdir()
    shutil.copy(empty_database, tmp_path / "sweeps" / "mlflow.db")
    return f"sqlite:///{tmp_path}/sweeps/mlflow.db"


class Refusal(Exception):
    error_code = "INVALID_PARAMETER_VALUE"


class FlakyWindow(MlflowRuns):
    """A window on a real database that counts its requests and fails when told to."""

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri, "quickstart")
        self.is_down = False
        self.loses_answers = 0  # requests that are carried out and then fail
        self.refused_names: set[str] = set()
        self.writes_whole_runs = True  # as a database does, and no server
        self.requests: list[str] = []

    def _request(self, name: str, *arguments: Any) -> Any:
        self.requests.append(name)
        if self.is_down:
            raise ConnectionError("connection refused\nwith details")
        answer = getattr(super(), name)(*arguments)
        if self.loses_answers and name in ("create", "insert", "log", "end"):
            self.loses_answers -= 1
            raise TimeoutError("no answer")
        return answer

    def open(self) -> None:
        self._request("open")

    def runs(self) -> Any:
        return self._request("runs")

    def create(self, name: str, tags: Any, start_ms: Any) -> Any:
        if name in self.refused_names:
            raise Refusal("no such name, please")
        return self._request("create", name, tags, start_ms)

    def insert(self, runs: Any) -> Any:
        if not self.writes_whole_runs or self.refused_names & {run.name for run in runs}:
            return False
        return self._request("insert", runs)

    def log(self, run_id: str, points: Any, params: Any, tags: Any) -> None:
        self._request("log", run_id, points, params, tags)

    def log_data(self, run_id: str, data: Any) -> None:
        self._request("log_data", run_id, data)

    def steps(self, run_id: str, key: str) -> Any:
        return self._request("steps", run_id, key)

    def set_running(self, run_id: str) -> None:
        self._request("set_running", run_id)

    def end(self, run_id: str, status: str, end_ms: Any) -> None:
        self._request("end", run_id, status, end_ms)

    def delete(self, run_id: str) -> None:
        self._request("delete", run_id)

    def log_text(self, run_id: str, content: str, name: str) -> None:
        self._request("log_text", run_id, content, name)


@pytest.fixture
def window(tracking_uri: str) -> FlakyWindow:
    return FlakyWindow(tracking_uri)


@pytest.fixture
def start(window: FlakyWindow) -> Iterator[Callable[..., Tracker]]:
    """`start()`: a tracker on the test's database that flushes every 20 ms, closed at the latest with the test.

    Fields of its `Patience` and options of a tracker are given by name.
    """
    fields = {field.name for field in dataclasses.fields(Patience)}
    trackers: list[Tracker] = []

    def tracker(spec_json: str = '{"name": "quickstart"}', **options: Any) -> Tracker:
        patience = {"flush_interval_s": 0.02, "first_wait_s": 0.01} | {k: v for k, v in options.items() if k in fields}
        others = {"window": window} | {name: value for name, value in options.items() if name not in fields}
        trackers.append(Tracker("quickstart", spec_json, patience=Patience(**patience), **others))
        return trackers[-1]

    yield tracker
    window.is_down = False
    for started in trackers:
        started.close(TrialStatus.CANCELLED, timeout_s=5)


@dataclasses.dataclass(frozen=True)
class Seen:
    """One run as MLflow's own client shows it."""

    run_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]  # key -> (step, value), in the order they were logged


@pytest.fixture
def look(tracking_uri: str) -> Callable[[], tuple[Seen, dict[str, Seen]]]:
    """`look()`: the sweep's run and the trials' runs by trial_id. Two runs of one trial fail the test.

    So does a trial's run that is not below the sweep's, by way of its configuration's where there are such.
    """
    from mlflow.tracking.client import MlflowClient

    def seen() -> tuple[Seen, dict[str, Seen]]:
        client = MlflowClient(tracking_uri=tracking_uri)
        experiment = client.get_experiment_by_name("quickstart")
        assert experiment is not None
        runs = [
            Seen(
                run_id=run.info.run_id,
                name=run.info.run_name,
                status=run.info.status,
                start_ms=run.info.start_time,
                end_ms=run.info.end_time,
                tags=run.data.tags,
                params=run.data.params,
                metrics={
                    key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                    for key in run.data.metrics
                },
            )
            for run in client.search_runs([experiment.experiment_id])
        ]
        (parent,) = [run for run in runs if run.tags["adaptune.kind"] == "sweep"]
        children = [run for run in runs if run.tags["adaptune.kind"] == "trial"]
        configurations = {run.run_id: run for run in runs if run.tags["adaptune.kind"] == "configuration"}
        above = {run.tags["mlflow.parentRunId"] for run in children}
        assert above <= (set(configurations) or {parent.run_id})
        assert {run.tags["mlflow.parentRunId"] for run in configurations.values()} <= {parent.run_id}
        assert {run.tags["adaptune.sweep_run"] for run in runs if run is not parent} <= {parent.run_id}
        by_trial = {run.tags["adaptune.trial_id"]: run for run in children}
        assert len(by_trial) == len(children)
        return parent, by_trial

    return seen


TREC = trial_config(task="data/trec", backbone="minilm", method_options={"adapter_size": 64}, learning_rate=1e-3)


@pytest.fixture(scope="session")
def planned() -> Callable[..., PlannedTrial]:
    def trial(trial_id: str = "t0") -> PlannedTrial:
        return planned_trial(trial_id, TREC, task="trec")

    return trial


@pytest.fixture(scope="session")
def epoch() -> Callable[[int], EpochReport]:
    def report(number: int) -> EpochReport:
        score = number / 10
        validation = {"accuracy": score, "loss": 2 / number}
        return epoch_report(number, validation_score=score, validation=validation, duration_s=10.0)

    return report


@pytest.fixture(scope="session")
def record(planned: Callable[..., PlannedTrial], epoch: Callable[[int], EpochReport]) -> Callable[..., TrialRecord]:
    """`record(trial_id, status, **fields)`: the end of `planned(trial_id)` after two epochs."""

    def ended(trial_id: str = "t0", status: str = "completed", **changes: Any) -> TrialRecord:
        measured = {
            "validation_score": 0.2,
            "test_score": 0.25,
            "duration_s": 21.5,
            "engine": "host/cpu",
            "provenance": {"commit": "abc"},
            "validation": {"accuracy": 0.2, "loss": 1.0},
            "test": {"accuracy": 0.25},
            "epochs": (epoch(1), epoch(2)),
        }
        return measured_record(planned(trial_id), status, **(measured | changes))

    return ended
