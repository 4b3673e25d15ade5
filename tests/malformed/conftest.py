"""The command line as a user calls it, stopped at the door of training, and something sound to spoil."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pyarrow as pa
import pytest

from orchestrator.analysis.questions.ablation import SCHEMA
from orchestrator.cli import main
from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.record import TrialStatus
from orchestrator.run.sweep import execute as execute_sweep
from orchestrator.store import Store
from orchestrator.store.segments import parquet_bytes
from tests.factories import STARTED_AT, trial_record
from tests.predicted import of_trial


class AtTheDoor(BaseException):
    """Raised where a sweep was accepted and would start to train; not an `Exception`, so that nobody takes it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended. `status` is None where it was accepted and stopped at the door of training."""

    status: int | None
    out: str
    err: str
    warnings: tuple[str, ...]

    @property
    def is_accepted(self) -> bool:
        return self.status is None

    def assert_refused(self, *fragments: str) -> None:
        """Exit status 2, nothing on standard output, and one message whose numbered faults hold every fragment."""
        assert self.status == 2, self
        assert self.out == "", self
        assert "Traceback" not in self.err
        for fragment in fragments:
            assert fragment in self.err, f"{fragment!r} is not said in:\n{self.err}"


Call = Callable[..., Ended]


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        self.said.append(entry.getMessage())


def _call(*arguments: str) -> Ended:
    out, err, warnings = io.StringIO(), io.StringIO(), _Warnings()
    logging.getLogger().addHandler(warnings)
    status: int | None = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(AtTheDoor):
            status = main(arguments)
    finally:
        logging.getLogger().removeHandler(warnings)
    return Ended(status=status, out=out.getvalue(), err=err.getvalue(), warnings=tuple(warnings.said))


@pytest.fixture(scope="module")  # no longer: what it patches is everybody's
def call() -> Iterator[Call]:
    """Runs a command of `adaptune`; one that would train is stopped once everything was checked and planned.

    Whatever a command raises instead of ending fails the test: a traceback is never an answer.
    """

    def execute(*arguments: Any, **options: Any) -> Any:
        raise AtTheDoor

    # First: imported under the patch, it would take the patched function for its own and keep it.
    importlib.import_module("orchestrator.cli.run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.run.sweep.execute", execute)
        patch.setattr("orchestrator.cli.run.execute", execute)
        patch.setattr("trainables.data.reachability.hub_answers", lambda: False)  # no network
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("COLUMNS", "400")
        yield _call


@pytest.fixture
def call_on_store(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """As `call`, but a sweep is stopped only where the first trial would train: its store is begun or gone on with."""

    def at_the_door(*arguments: Any, **options: Any) -> Any:
        raise AtTheDoor

    monkeypatch.setattr("orchestrator.cli.run.execute", execute_sweep)
    monkeypatch.setattr("orchestrator.scheduling.tuner.run_trials", at_the_door)
    monkeypatch.setattr("orchestrator.tracking.Tracker", MagicMock())
    monkeypatch.setattr("orchestrator.cli.export.train_again", at_the_door)
    return call


@pytest.fixture(scope="session")
def small_encoder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT wide enough for every method's default options. Not to be changed."""
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp("encoder") / "small"
    shutil.copytree(tiny_bert, folder)
    config = AutoConfig.from_pretrained(tiny_bert, hidden_size=64, intermediate_size=64)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    save_file(AutoModel.from_config(config).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound task folder. Not to be changed."""
    folder = tmp_path_factory.mktemp("sound") / "opinion"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text_a": f"{split} w{row} {['bad', 'good'][row % 2]}", "label": row % 2} for row in range(8)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def sound(small_encoder: Path, good_folder: Path) -> Callable[[], dict[str, Any]]:
    """Makes the values of a sound sweep of three trials, to be spoiled."""
    values = {
        "name": "small",
        "backbone": str(small_encoder),
        "tasks": [str(good_folder)],
        "seeds": [0],
        "space": {"num_epochs": 1, "learning_rate": 1e-3},
        "methods": [{"adapter": {"adapter_size": {"grid": [1, 4]}}}, {"layernorm": {}}],
        "search": {"algorithm": "grid"},
        "early_stopping": "none",
    }
    return lambda: deepcopy(values)


@pytest.fixture(scope="session")
def whole_store(sound: Callable[[], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a sweep half done, widened once, beside another sweep, with all that a store can hold. Copy it.

    Of its four trials two are completed, in a segment each; the third failed twice and the fourth has not run.
    """
    store = Store(tmp_path_factory.mktemp("store") / "whole")
    for changes in ({"name": "other", "methods": ["bitfit"]}, {}, {"methods": [*sound()["methods"], "bitfit"]}):
        plan = plan_sweep({**sound(), **changes})
        store.begin(plan.spec.to_json(), plan_table(plan))
    for number, trial in enumerate([*plan.trials[:3], plan.trials[2]]):
        failed = number >= 2
        record = trial_record(
            trial,
            TrialStatus.FAILED if failed else TrialStatus.COMPLETED,
            sweep=plan.spec.name,
            metric="accuracy",
            validation_score=None if failed else 0.5 + number / 10,
            test_score=None if failed else 0.4 + number / 10,
            error="ValueError: no" if failed else None,
            started_at=STARTED_AT,
        )
        if not failed:
            store.keep_predictions({trial.trial_id: of_trial(number)})
        store.append([record])
        if number == 2:
            store.retire([trial.trial_id])
    ablation = dict.fromkeys(SCHEMA.names[:10], "small") | {"trial_id": plan.trials[0].trial_id, "seed": 0}
    ablation |= {"num_layers": 1, "first_layer": 0, "last_layer": 0, "score": 0.5, "whole_score": 0.6}
    table = pa.Table.from_pylist([{**ablation, "score_difference": -0.1}], schema=SCHEMA)
    store.keep_artifacts(plan.trials[0].trial_id, {"ablation.parquet": parquet_bytes(table)})
    with store.lock():
        store.write_engine_snapshot([])
    (Path(store.path) / "report").mkdir()
    (Path(store.path) / "report" / "report.html").write_text("<html>", encoding="utf-8")
    return Path(store.path)


@pytest.fixture
def store(whole_store: Path, tmp_path: Path) -> Path:
    """A copy of the whole store, to be spoiled."""
    return Path(shutil.copytree(whole_store, tmp_path / "store"))


def content(folder: Path, *, but: str | None = None) -> Mapping[str, bytes | None]:
    """Every file below a folder by its path, with its bytes, and every folder, with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if but is None or str(path.relative_to(folder)).split("/")[0] != but
    }


@pytest.fixture(scope="session")
def snapshot() -> Callable[..., Mapping[str, bytes | None]]:
    """`snapshot(folder)` gives what is in a folder, to be compared."""
    return content


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of a user, in which no test of this package may leave anything but the sweep it writes."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ADAPTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ADAPTUNE_NATIVE", "0")  # else each test's engines compile them anew
        yield folder
