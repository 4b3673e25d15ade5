"""Many ended runs written to MLflow's own database in one transaction.

A run by MLflow's client costs three requests and about twelve milliseconds of this process; trials that take less
would wait for it. Where the tracking store is a database that this process writes itself, whole runs are inserted
into MLflow's tables by its own models instead, as its store inserts them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.tracking.datasets import CONTEXT, CONTEXT_KEY, TaskData
from orchestrator.tracking.run_fields import Point

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run with all there is to say of it. One that is RUNNING still has not ended."""

    run_id: str  # 32 hexadecimal digits, of our choice, so that other runs can name it
    name: str
    status: str  # MLflow's word
    start_ms: int | None  # now, where it is not known
    end_ms: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point]
    data: TaskData | None = None  # shown as its input where the experiment knows the dataset


def insert_runs(store: Any, experiment_id: str, runs: Sequence[EndedRun]) -> bool:
    """Insert runs, all or none, and say whether they are there.

    They are not where it is not for us to do: the store is no database, a later MLflow has other tables, or a run
    breaks their rules; each run is then for MLflow's client to write. Raises what the database raises where it is away.
    """
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from sqlalchemy import insert
        from sqlalchemy.exc import DataError, IntegrityError
    except ImportError:
        return False
    if not isinstance(store, SqlAlchemyStore):
        return False
    try:
        rows = _rows(store, experiment_id, runs)
        with store.ManagedSessionMaker(read_only=False) as session:
            rows |= _input_rows(session, experiment_id, runs)
            for model, of_model in rows.items():
                if of_model:
                    session.execute(insert(model), of_model)
    except (IntegrityError, DataError, AttributeError, ImportError, TypeError) as error:
        logger.debug("MLflow's tables do not take these runs at once: %s", error)
        return False
    except Exception as error:
        # The store wraps what its database raised.
        if isinstance(error.__cause__, IntegrityError | DataError):
            return False
        raise
    return True


def _rows(store: Any, experiment_id: str, runs: Sequence[EndedRun]) -> dict[Any, list[dict[str, Any]]]:
    """What each of MLflow's tables gets, the runs first, since the others refer to them."""
    from mlflow.store.tracking.dbmodels import models

    root = store.get_experiment(experiment_id).artifact_location
    rows: dict[Any, list[dict[str, Any]]] = {models.SqlRun: []}
    for model in (models.SqlTag, models.SqlParam, models.SqlMetric, models.SqlLatestMetric):
        rows[model] = []
    for run in runs:
        run_id = run.run_id
        points = list(dict.fromkeys(run.points))
        latest = {point.key: point for point in sorted(points, key=lambda p: (p.step, p.time_ms, p.value))}
        rows[models.SqlRun].append(_run(store, experiment_id, root, run))
        rows[models.SqlTag] += _pairs(run_id, {**run.tags, "mlflow.runName": run.name})
        rows[models.SqlParam] += _pairs(run_id, run.params)
        rows[models.SqlMetric] += [_metric(store, run_id, point) for point in points]
        rows[models.SqlLatestMetric] += [_metric(store, run_id, point) for point in latest.values()]
    return rows


def _input_rows(session: Any, experiment_id: str, runs: Sequence[EndedRun]) -> dict[Any, list[dict[str, Any]]]:
    """What MLflow's tables of inputs get; the sweep's run has brought the datasets themselves."""
    from mlflow.store.tracking.dbmodels import models

    rows: dict[Any, list[dict[str, Any]]] = {models.SqlInput: [], models.SqlInputTag: []}
    wanted = [run for run in runs if run.data is not None]
    if not wanted:
        return rows
    of_experiment: Any = models.SqlDataset.experiment_id == int(experiment_id)
    known = {
        (each.name, each.digest): each.dataset_uuid for each in session.query(models.SqlDataset).filter(of_experiment)
    }
    for run in wanted:
        if run.data is None or (dataset := known.get((run.data.task, run.data.digest))) is None:
            continue
        input_id = uuid.uuid4().hex
        ends = {"source_type": "DATASET", "source_id": dataset, "destination_type": "RUN", "destination_id": run.run_id}
        rows[models.SqlInput].append({"input_uuid": input_id, **ends})
        rows[models.SqlInputTag].append({"input_uuid": input_id, "name": CONTEXT_KEY, "value": CONTEXT})
    return rows


def _run(store: Any, experiment_id: str, root: str, run: EndedRun) -> dict[str, Any]:
    from mlflow.utils.uri import append_to_uri_path

    now = round(1000 * time.time())
    return {
        "run_uuid": run.run_id,
        "name": run.name,
        "experiment_id": int(experiment_id),
        "user_id": run.tags.get("mlflow.user", "unknown"),
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "status": run.status,
        "start_time": now if run.start_ms is None else run.start_ms,
        "end_time": None if run.status == "RUNNING" else now if run.end_ms is None else run.end_ms,
        "lifecycle_stage": "active",
        "artifact_uri": append_to_uri_path(root, run.run_id, store.ARTIFACTS_FOLDER_NAME),
    }


def _pairs(run_id: str, values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"run_uuid": run_id, "key": key, "value": value} for key, value in values.items()]


def _metric(store: Any, run_id: str, point: Point) -> dict[str, Any]:
    is_nan, value = store.sanitize_metric_value(point.value)
    return {
        "run_uuid": run_id,
        "key": point.key,
        "value": value,
        "timestamp": point.time_ms,
        "step": point.step,
        "is_nan": is_nan,
    }
