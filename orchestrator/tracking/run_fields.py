"""What MLflow shows of a trial: the name, tags, parameters and metric points of its run. Knows no MLflow."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord
from trainables.config import Scalar
from trainables.outcome import EpochReport

KIND = "adaptune.kind"  # "sweep", "configuration" or "trial"
SWEEP = "adaptune.sweep"
SWEEP_RUN = "adaptune.sweep_run"  # the id of the sweep's run, however deep below it a run lies
TRIAL_ID = "adaptune.trial_id"
CONFIG_ID = "adaptune.config_id"
STATUS = "adaptune.status"
STARTED_AT = "adaptune.started_at"  # with the status, says which attempt at a trial the run holds
ERROR = "adaptune.error"
PARENT = "mlflow.parentRunId"
NAME = "mlflow.runName"
NOTE = "mlflow.note.content"  # what MLflow's page shows as the description, in Markdown

CURVE = "validation_score"  # the metric that every epoch has: its steps are the epochs that a run holds
_LONGEST_TEXT = 4000  # characters; less than any MLflow server's limit
_LONGEST_PART = 200  # bytes; MLflow takes keys of 250 characters, and a store of files names of 255 bytes

_MEASURES = (
    "trained_params",
    "trained_params_without_head",
    "total_params",
    "best_epoch",
    "duration_s",
    "examples_per_second",
    "pack_size",
    "peak_memory_bytes",
)


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time_ms: int  # since 1970, UTC
    step: int  # the epoch


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """What is known of a trial from before it runs."""

    trial_id: str
    config_id: str
    task: str
    backbone: str
    method: str
    seed: int
    hyperparameters: Mapping[str, Scalar]
    fold: int | None = None
    folds: int | None = None  # how many its task is cut into

    @staticmethod
    def of_plan(trial: PlannedTrial) -> TrialFacts:
        return TrialFacts(
            trial_id=trial.trial_id,
            config_id=trial.config_id,
            task=trial.task,
            backbone=trial.config.backbone,
            method=trial.config.method,
            seed=trial.config.seed,
            hyperparameters=trial.hyperparameters,
            fold=trial.config.fold,
            folds=trial.config.folds,
        )

    @staticmethod
    def of_record(record: TrialRecord) -> TrialFacts:
        return TrialFacts(
            trial_id=record.trial_id,
            config_id=record.config_id,
            task=record.task,
            backbone=record.backbone,
            method=record.method,
            seed=record.seed,
            hyperparameters=record.hyperparameters,
            fold=record.fold,
            folds=int(record.provenance["folds"]) if "folds" in record.provenance else None,
        )

    def params(self) -> dict[str, str]:
        """Parameters as searched; what is left to a default (null) has none."""
        values = {"task": self.task, "method": self.method, "backbone": self.backbone, "seed": self.seed}
        values |= {"fold": self.fold}
        return {key: text(str(v)) for key, v in {**values, **self.hyperparameters}.items() if v is not None}

    def tags(self) -> dict[str, str]:
        return {KIND: "trial", TRIAL_ID: self.trial_id, CONFIG_ID: self.config_id}


def source_tags(commit: str | None = None) -> dict[str, str]:
    """The program that writes a run and, where it is known, the commit that trained the trial."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    tags = {"mlflow.source.name": name or "python", "mlflow.source.type": "LOCAL"}
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def key_part(name: str) -> str:
    """A name as a part of a metric's or a tag's key: itself where MLflow takes it, and different names differently.

    MLflow takes letters and digits of any script and a few signs, in what reads as a path that leads nowhere else. Any
    other name is written as far as that goes, with the beginning of its hash.
    """
    legal = re.sub(r"[^\w. /:-]", "_", name)
    legal = "/".join("_" if part in ("", ".", "..") else part for part in legal.split("/"))
    encoded = legal.encode()
    if legal == name and len(encoded) <= _LONGEST_PART:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{encoded[: _LONGEST_PART - 9].decode(errors='ignore')}-{digest}"


def record_tags(record: TrialRecord) -> dict[str, str]:
    """The tags that a trial's end adds to its run. Two records with the same ones are the same record."""
    tags = {STATUS: record.status.value, STARTED_AT: record.started_at or "", "adaptune.engine": record.engine or ""}
    tags |= {f"adaptune.{key}": value for key, value in record.provenance.items()}
    tags[ERROR] = record.error or ""  # written even when empty: it takes the place of an earlier attempt's
    return {key: text(value) for key, value in tags.items()}


def epoch_points(report: EpochReport, time_ms: int) -> list[Point]:
    """The metric points of one epoch."""
    values = {CURVE: report.validation_score, "train/loss": report.train_loss}
    values |= {f"validation/{key_part(name)}": value for name, value in report.validation.items()}
    return [Point(key, float(value), time_ms, report.epoch) for key, value in values.items()]


def record_points(record: TrialRecord) -> list[Point]:
    """The metric points of a trial's end, without its epochs'. The same record always gives the same points."""
    values: dict[str, float | None] = {name: getattr(record, name) for name in _MEASURES}
    values |= {"test_score": record.test_score}
    values |= {f"test/{key_part(name)}": value for name, value in record.test.items()}
    if not record.epochs:
        values |= {CURVE: record.validation_score}
    # What the last epoch measured is there already; the rest is of further splits, measured once at the end.
    there = record.epochs[-1].validation if record.epochs else {}
    values |= {f"validation/{key_part(name)}": value for name, value in record.validation.items() if name not in there}
    last = record.epochs[-1].epoch if record.epochs else 0
    end = end_ms(record)
    return [Point(key, float(value), end, last) for key, value in values.items() if value is not None]


def epoch_times(record: TrialRecord) -> Iterable[tuple[int, EpochReport]]:
    """Each epoch of a record with when it ended, in milliseconds since 1970."""
    now = start_ms(record) or 0
    for report in record.epochs:
        now += round(1000 * report.duration_s)
        yield now, report


def start_ms(record: TrialRecord) -> int | None:
    """When the trial began, in milliseconds since 1970; None where that is not known."""
    return round(1000 * datetime.fromisoformat(record.started_at).timestamp()) if record.started_at else None


def end_ms(record: TrialRecord) -> int:
    """When the trial ended, in milliseconds since 1970; its beginning where only that is known, else 0."""
    return (start_ms(record) or 0) + round(1000 * (record.duration_s or 0))


def text(value: str) -> str:
    """At most what MLflow takes; of a longer text the end, where a traceback names its error."""
    return value if len(value) <= _LONGEST_TEXT else f"... {value[-_LONGEST_TEXT + 4 :]}"
