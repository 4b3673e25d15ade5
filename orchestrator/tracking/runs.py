"""The door to MLflow: the few requests that the tracker makes, in its words."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.tracking.address import artifact_location, database_file
from orchestrator.tracking.bulk_insert import EndedRun, insert_runs
from orchestrator.tracking.datasets import CONTEXT, CONTEXT_KEY, TaskData
from orchestrator.tracking.run_fields import KIND, NOTE, TRIAL_ID, Point

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

_METRICS_A_BATCH = 1000  # MLflow's limits for one log_batch; together at most 1000 as well
_TEXTS_A_BATCH = 100
_RUNS_A_PAGE = 1000

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # else two lines for every run that ends
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the tracker tries again itself, and says so once
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
}

# An experiment of this kind opens on its runs. Where MLflow's pages let the reader choose between generative AI and
# model training, that choice decides, unless an address makes it.
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
_AS_TRAINING = "?workflowType=machine_learning"
_NOTE = (
    "A sweep of adaptune. Its run holds the spec, the report and links to the best configuration of each task; below it"
    " are its configurations, with means over seeds and folds, and below these a run per trial."
)

# MLflow's answers that repeating the same request will not change.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")


@dataclass(frozen=True, kw_only=True)
class Run:
    """An MLflow run as it was found."""

    run_id: str
    status: str  # MLflow's word
    start_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]


class MlflowRuns:
    """One MLflow experiment, which holds the runs of one sweep.

    Making one is free; `open` imports MLflow, and may create and migrate a database, which takes seconds. Used from
    one thread. Every method may raise whatever MLflow and its database or HTTP client raise; `is_refusal` tells the
    errors that will not go away from outages.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self._client: MlflowClient | None = None
        self.experiment_id = ""
        self._began_ms: dict[str, int] = {}  # of runs that were begun here and have not ended

    def connect(self) -> None:
        """Reach MLflow anew."""
        self._client = None
        with _one_migration_at_a_time(database_file(self.tracking_uri)):
            self._client = _client(self.tracking_uri)

    def open(self) -> None:
        """Reach MLflow anew, and make the experiment where there is none."""
        self.connect()
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            location = artifact_location(self.tracking_uri)
            self.experiment_id = self.client.create_experiment(
                self.experiment, artifact_location=location, tags={_KIND: _TRAINING, NOTE: _NOTE}
            )
        else:
            self.experiment_id = found.experiment_id
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            if _KIND not in found.tags:  # made by an earlier version; what somebody has chosen stays
                self.client.set_experiment_tag(found.experiment_id, _KIND, _TRAINING)

    def runs(self) -> list[Run]:
        """All runs of this sweep that have not been deleted, the oldest first."""
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                filter_string=f"tags.`{KIND}` != ''",
                max_results=_RUNS_A_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += [
                Run(
                    run_id=run.info.run_id,
                    status=run.info.status,
                    start_ms=run.info.start_time or 0,
                    tags=dict(run.data.tags),
                    params=dict(run.data.params),
                )
                for run in page
            ]
            token = page.token
            if not token:
                return runs

    def find_trial(self, trial_id: str) -> str | None:
        """The id of a trial's run, once connected; None where there is no experiment or no such run. Makes nothing."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return None
        wanted = f"tags.`{TRIAL_ID}` = '{trial_id}'"
        # Of several runs, which lost answers leave behind, the one that has ended is the one that stays.
        runs = self.client.search_runs([experiment.experiment_id], wanted, order_by=["attributes.end_time DESC"])
        return str(runs[0].info.run_id) if runs else None

    def create(self, name: str, tags: Mapping[str, str], start_ms: int | None) -> str:
        """Begin a run, which is then RUNNING. Returns its id."""
        tags = {**_user(), **tags}
        run = self.client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=name)
        self._began_ms[str(run.info.run_id)] = start_ms or 0
        return str(run.info.run_id)

    def insert(self, runs: Sequence[EndedRun]) -> bool:
        """Add whole runs in one request; False where each has to be written by itself."""
        store = getattr(getattr(self.client, "_tracking_client", None), "store", None)
        whole = [replace(run, tags={**_user(), **run.tags}) for run in runs]
        return insert_runs(store, self.experiment_id, whole)

    def log(self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add to a run, in one request where MLflow's limits allow. The tags go last: where they are, all is there."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, point.time_ms, point.step) for point in points]
        pairs = [Param(key, value) for key, value in params.items()]
        marks = [RunTag(key, value) for key, value in tags.items()]
        room = _METRICS_A_BATCH - 2 * _TEXTS_A_BATCH
        while metrics or pairs or marks:
            last = len(metrics) <= room and len(pairs) <= _TEXTS_A_BATCH
            self.client.log_batch(
                run_id,
                metrics=metrics[:room],
                params=pairs[:_TEXTS_A_BATCH],
                tags=marks[:_TEXTS_A_BATCH] if last else [],
            )
            metrics, pairs = metrics[room:], pairs[_TEXTS_A_BATCH:]
            marks = marks[_TEXTS_A_BATCH:] if last else marks

    def log_data(self, run_id: str, data: Sequence[TaskData]) -> None:
        """Name datasets as what a run trains on, in one request; one that is named already is left as it is."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(each.task, each.digest, each.source_type, each.source, profile=each.profile),
                tags=[InputTag(CONTEXT_KEY, CONTEXT)],
            )
            for each in data
        ]
        self.client.log_inputs(run_id, inputs)

    def address(self, run_id: str, artifact: str | None = None) -> str:
        """The address of a run, or of one of its artifacts, within MLflow's pages."""
        page = f"#/experiments/{self.experiment_id}/runs/{run_id}"
        return f"{page}/artifacts/{artifact}{_AS_TRAINING}" if artifact else f"{page}{_AS_TRAINING}"

    def steps(self, run_id: str, key: str) -> set[int]:
        """The steps at which a run holds a metric."""
        return {metric.step for metric in self.client.get_metric_history(run_id, key)}

    def set_running(self, run_id: str) -> None:
        self.client.update_run(run_id, status="RUNNING")

    def end(self, run_id: str, status: str, end_ms: int | None) -> None:
        """End a run with a status in MLflow's words; now, where the time is not known.

        None ends before it began. A start is told by this machine's clock, and late where the trial is short; an end is
        told by the clock of the machine that trained it.
        """
        if end_ms is not None:
            end_ms = max(end_ms, self._began_ms.get(run_id, 0))
        self.client.set_terminated(run_id, status=status, end_time=end_ms)
        self._began_ms.pop(run_id, None)

    def delete(self, run_id: str) -> None:
        self.client.delete_run(run_id)

    def log_file(self, run_id: str, path: Path, folder: str | None) -> None:
        """Copy a file, or the files below a folder, to a run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        else:
            self.client.log_artifact(run_id, str(path), folder)

    def log_text(self, run_id: str, content: str, name: str) -> None:
        self.client.log_text(run_id, content, name)

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            raise RuntimeError("the window has not been opened")
        return self._client


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError, ImportError):  # a user without a name
        return {}


def is_refusal(error: Exception) -> bool:
    """Whether MLflow understood the request and will answer it the same way again."""
    return getattr(error, "error_code", None) in _REFUSALS


def load_mlflow() -> None:
    """Import MLflow and what it needs for a database and for models, quietly. Raises `ImportError`.

    For the main thread: two threads that import much at once can meet each other's half-made modules.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)  # what the user says wins
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking.client

    if "mlflow.pyfunc" not in sys.modules:
        with warnings.catch_warnings():  # it warns of its own type hints
            warnings.simplefilter("ignore")
            import mlflow.pyfunc  # noqa: F401
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the tracker reports what fails, once


def _client(tracking_uri: str) -> MlflowClient:
    load_mlflow()
    from mlflow.tracking.client import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextlib.contextmanager
def _one_migration_at_a_time(database: Path | None) -> Iterator[None]:
    """Let one process at a time create the tables of a SQLite file; two at once can leave it half made."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f"{database.name}.lock"), "w") as lock:
        _wait_for(lock)  # given back when the file is closed, also by the death of the process
        yield


def _wait_for(lock: Any) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    fcntl.flock(lock, fcntl.LOCK_EX)
