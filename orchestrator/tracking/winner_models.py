"""Winners' weights as models of MLflow, which its pyfunc flavour opens and `mlflow models predict` and `serve` run.

A model is a saved adapter with a description of it: which columns it reads and answers with, what must be installed,
and an example. Its run is the trial's. It is looked for before it is made, so writing it again costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from orchestrator.record import TrialRecord
from orchestrator.tracking.run_fields import (
    CONFIG_ID,
    KIND,
    NOTE,
    STARTED_AT,
    SWEEP,
    SWEEP_RUN,
    TRIAL_ID,
    Point,
    TrialFacts,
    end_ms,
    record_points,
    text,
)
from orchestrator.tracking.runs import MlflowRuns
from trainables.inference.pyfunc import ADAPTER, BACKBONE, SETTINGS, input_columns, output_columns, required
from trainables.inference.saved_names import CONFIG, write_files
from trainables.task import TaskInfo

STORE = "adaptune.store"
CARRIES_BACKBONE = "adaptune.carries_backbone"
IS_WINNER = "adaptune.is_winner"  # "false" where another trial has overtaken it since
_VERSIONS = "mlflow.modelVersions"  # as MLflow itself notes them
_READY: Literal["READY"] = "READY"
_MODELS_A_PAGE = 100
_LOADER = "trainables.inference.pyfunc"
# What a reader of the model sees as a request; of the user's own rows nothing is copied.
_EXAMPLES = {"text": "The first text to be judged.", "pair": "The text that it is paired with."}
# What of a trial's metrics its model shows too.
_SHOWN = ("test_score", "trained_params", "trained_params_without_head", "total_params")
_BEST = "best_validation_score"
# MLflow takes none of these signs in the name of a logged model, nor the first two in that of a registered one; what is
# not printed is in neither.
_NOT_IN_NAMES = re.compile(r"[/:.%\"'\x00-\x1f\x7f]")
_MOST_OF_NAME = 100  # characters of a task; its databases have room for 256 of a registered model


@dataclass(frozen=True, kw_only=True)
class WinnerModel:
    """A trial whose weights are to be a model of MLflow.

    Args:
        files: reads the files of its saved adapter by their path in its folder; None where they are gone.
        backbone: the files of its backbone, likewise, where those must travel with it.
        store: where the sweep's store is, without secrets.
        register_as: the registered model that it is to be a version of, if any.
    """

    record: TrialRecord
    files: Callable[[], Mapping[str, bytes] | None]
    backbone: Mapping[str, Path]
    store: str
    register_as: str | None = None


def registered_name(name: str, task: str | None = None) -> str:
    """What a registered model is called: the name that was asked for and, where there are several tasks, the task's."""
    return name if task is None else f"{name}-{_named(task)}"


def _named(text: str) -> str:
    """A text as a part of a name that MLflow takes: without its signs, and of a length for its columns."""
    name = _NOT_IN_NAMES.sub("-", text)
    if len(name) <= _MOST_OF_NAME:
        return name
    return f"{name[:_MOST_OF_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A whole model as MLflow has it."""

    model_id: str
    trial_id: str
    is_winner: bool
    carries_backbone: bool


class WinnerModels:
    """The models of a sweep in its MLflow experiment. Used from one thread; what MLflow raises is passed on."""

    def __init__(self, window: MlflowRuns, sweep: str) -> None:
        self._window = window
        self._sweep = sweep
        self._held: dict[tuple[str, str], _Held] | None = None

    def write(
        self, model: WinnerModel, *, run_id: str | None, sweep_run: str | None, is_winner: bool = True
    ) -> str | None:
        """Make MLflow hold a trial's model, registered where that is asked for; returns its id.

        `run_id` is the trial's run, which the model then belongs to. Without `is_winner`, what MLflow says about that
        stays, and of a new model it is "false". One that is to carry its backbone takes the place of one that does
        not. None where the weights are gone.
        """
        held = self._find(model.record)
        poorer = held if held is not None and model.backbone and not held.carries_backbone else None
        if held is None or poorer is not None:
            files = model.files()
            if files is None:
                return None
            is_known_winner = poorer is not None and poorer.is_winner
            model_id = self._make(model, files, run_id, sweep_run, is_winner or is_known_winner)
            if poorer is not None:
                self._window.client.delete_logged_model(poorer.model_id)
        else:
            model_id = held.model_id
            if is_winner and not held.is_winner:
                self._window.client.set_logged_model_tags(model_id, {IS_WINNER: "true"})
        if model.register_as is not None:
            self.register(model_id, model.register_as, model.record, run_id)
        return model_id

    def overtake(self, winners: frozenset[str]) -> None:
        """Mark the models of all other trials as overtaken. Their files stay: somebody may serve them."""
        for held in self._all().values():
            if held.is_winner and held.trial_id not in winners:
                self._window.client.set_logged_model_tags(held.model_id, {IS_WINNER: "false"})

    def register(self, model_id: str, name: str, record: TrialRecord, run_id: str | None) -> str:
        """Make a model a version of a registered one, once; returns the address of the version."""
        from mlflow.exceptions import MlflowException

        client = self._window.client
        # Not its address: that MLflow would look for in the tracking store of the environment.
        source = client.get_logged_model(model_id).artifact_location
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
            for known in versions:
                if known.source == source:
                    return f"models:/{name}/{known.version}"
        tags = {SWEEP: self._sweep, TRIAL_ID: record.trial_id, CONFIG_ID: record.config_id}
        # Without a run MLflow would look for the model's, in the tracking store of the environment too.
        made = client.create_model_version(
            name, source, run_id=run_id, tags=tags, model_id=model_id if run_id else None
        )
        self._tell_page(model_id, {"name": name, "version": made.version})
        return f"models:/{name}/{made.version}"

    def _tell_page(self, model_id: str, version: Mapping[str, Any]) -> None:
        """Have MLflow's page of a model link to a version of it."""
        client = self._window.client
        known = json.loads(client.get_logged_model(model_id).tags.get(_VERSIONS, "[]"))
        client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps([*known, version])})

    def _find(self, record: TrialRecord) -> _Held | None:
        return self._all().get((record.trial_id, record.started_at or ""))

    def _all(self) -> dict[tuple[str, str], _Held]:
        """The whole models by trial and training. What a driver that died has left unfinished is deleted."""
        if self._held is not None:
            return self._held
        found: dict[tuple[str, str], _Held] = {}
        token = None
        while True:
            page = self._window.client.search_logged_models(
                [self._window.experiment_id], max_results=_MODELS_A_PAGE, page_token=token
            )
            for each in page:
                if each.tags.get(KIND) != "model":
                    continue  # somebody else's
                if str(each.status) != _READY:
                    self._window.client.delete_logged_model(each.model_id)
                    continue
                key = (each.tags.get(TRIAL_ID, ""), each.tags.get(STARTED_AT, ""))
                found[key] = _Held(
                    model_id=each.model_id,
                    trial_id=key[0],
                    is_winner=each.tags.get(IS_WINNER) == "true",
                    carries_backbone=each.tags.get(CARRIES_BACKBONE) == "true",
                )
            token = page.token
            if not token:
                break
        self._held = found
        return found

    def _make(
        self,
        model: WinnerModel,
        files: Mapping[str, bytes],
        run_id: str | None,
        sweep_run: str | None,
        is_winner: bool,
    ) -> str:
        from mlflow.entities import LoggedModelOutput, Metric

        record, client = model.record, self._window.client
        facts = TrialFacts.of_record(record)
        tags = {
            KIND: "model",
            SWEEP: self._sweep,
            TRIAL_ID: record.trial_id,
            CONFIG_ID: record.config_id,
            STARTED_AT: record.started_at or "",
            STORE: text(model.store),
            IS_WINNER: str(is_winner).lower(),
            CARRIES_BACKBONE: str(bool(model.backbone)).lower(),
            NOTE: _note(model, files, self._sweep, self._window.address(sweep_run) if sweep_run else None),
            **({SWEEP_RUN: sweep_run} if sweep_run else {}),
        }
        name = _named(f"{record.task} {record.method}")
        made = client.create_logged_model(
            self._window.experiment_id,
            name=name,
            source_run_id=run_id,
            tags=tags,
            params=facts.params(),
            model_type="adaptune",
        )
        model_id = str(made.model_id)
        with tempfile.TemporaryDirectory(prefix="adaptune-model-") as scratch:
            folder = Path(scratch) / "model"
            write_model(folder, model, files, model_id=model_id, run_id=run_id)
            client.log_model_artifacts(model_id, str(folder))
        if run_id is not None:
            points = [Metric(p.key, p.value, p.time_ms, p.step, model_id=model_id) for p in _points(record)]
            client.log_batch(run_id, metrics=points)
            client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
        client.finalize_logged_model(model_id, _READY)  # last: a model that says so is whole
        key = (record.trial_id, record.started_at or "")
        self._all()[key] = _Held(
            model_id=model_id, trial_id=key[0], is_winner=is_winner, carries_backbone=bool(model.backbone)
        )
        return model_id


def write_model(
    folder: Path,
    model: WinnerModel,
    files: Mapping[str, bytes],
    *,
    model_id: str | None = None,
    run_id: str | None = None,
) -> None:
    """Write a model as MLflow's pyfunc flavour reads it, into a new folder.

    The ids are MLflow's own, of the model and its run. Raises `ValueError` where the files are not those of a saved
    adapter, and `OSError`.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    about = json.loads(files[CONFIG])
    task = TaskInfo(**{**about["task"], "label_names": tuple(about["task"]["label_names"])})

    def column(name: str, kind: Any) -> ColSpec:
        is_list = isinstance(kind, list)
        plain = DataType[kind[0] if is_list else kind]
        return ColSpec(Array(plain) if is_list else plain, name)

    inputs = Schema([column(name, kind) for name, kind in input_columns(task).items()])
    outputs = Schema([column(name, kind) for name, kind in output_columns(task).items()])
    with tempfile.TemporaryDirectory(prefix="adaptune-data-") as scratch:
        data = Path(scratch) / "trial"  # MLflow keeps the name
        (data / ADAPTER).mkdir(parents=True)
        write_files(data / ADAPTER, files)
        for name, source in model.backbone.items():
            target = data / BACKBONE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.absolute())  # MLflow copies what it points to
        record = model.record
        mlflow.pyfunc.save_model(
            folder,
            loader_module=_LOADER,
            data_path=str(data),
            mlflow_model=Model(model_id=model_id, run_id=run_id),
            signature=ModelSignature(inputs=inputs, outputs=outputs),
            input_example=_example(task),
            pip_requirements=requirements(record.method, record.backbone),
            model_config=SETTINGS,
            metadata={
                "library": "adaptune",
                "trial_id": record.trial_id,
                "config_id": record.config_id,
                "sweep": record.sweep,
                "task": asdict(task),
                "backbone": record.backbone,
                "backbone_fingerprint": about["backbone_fingerprint"],
            },
        )
    # MLflow takes along what manages the project of the folder that this process happens to have been started in.
    for stranger in ("uv.lock", "pyproject.toml", ".python-version"):
        (folder / stranger).unlink(missing_ok=True)


def requirements(method: str, backbone: str) -> list[str]:
    """Each library that loading a model needs, with the version that is installed here."""
    found = []
    for name in required(method, backbone):
        try:
            # What follows a plus is which build it is, such as the one without a GPU; others answer equally.
            found.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:  # run from its sources
            found.append(name)
    return found


def _note(model: WinnerModel, files: Mapping[str, bytes], sweep: str, address: str | None) -> str:
    """What MLflow's page says of a model, in Markdown. `address`: that of the sweep's run there."""
    record, size = model.record, sum(map(len, files.values()))
    whose = f"[{sweep}]({address})" if address else sweep
    carried = sum(path.stat().st_size for path in model.backbone.values())
    backbone = (
        f"the backbone is in it ({_written(carried)})"
        if model.backbone
        else f"the backbone is found by its name, {record.backbone}"
    )
    return (
        f"{record.method} on {record.task}: trial {record.trial_id} of the sweep {whose}. What was trained has "
        f"{_written(size)}; {backbone}. The columns it reads and answers with are in its signature."
    )


def _written(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.0f} kB"


def _example(task: TaskInfo) -> Any:
    """A request of one row, as a pandas DataFrame."""
    table = pa.table({name: [_EXAMPLES[name]] for name in input_columns(task)}).to_pandas()
    table.columns = table.columns.astype(object)  # MLflow compares them with numbers, which pandas 3 warns of
    return table


def _points(record: TrialRecord) -> list[Point]:
    """What a trial's model shows of its metrics. The first are those of the run itself, which has them once still."""
    own = [point for point in record_points(record) if point.key in _SHOWN or point.key.startswith("test/")]
    if record.validation_score is not None:
        own.append(Point(_BEST, record.validation_score, end_ms(record), own[0].step if own else 0))
    return own
