"""What a trial reports: one EpochReport an epoch, one TrialOutcome at its end. Needs neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.predictions import Predictions

# The files of a saved adapter by their path in its folder, the configuration last; read when they are asked for.
WeightFiles = Callable[[], Mapping[str, bytes]]


class OutcomeStatus(StrEnum):
    """How a training ended; a crash is an outcome like any other."""

    COMPLETED = "completed"
    PRUNED = "pruned"  #: stopped early because its validation curve did not promise enough
    FAILED = "failed"
    CANCELLED = "cancelled"  #: stopped from outside before its last epoch


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch of one trial, measured after its last optimizer step."""

    epoch: int  #: counted from 1
    step: int  #: optimizer steps taken so far
    train_loss: float  #: mean over the epoch's examples
    validation_score: float  #: the task's metric
    validation: Mapping[str, float]  #: every component of the metric, and "loss"
    duration_s: float  #: training and evaluation of this epoch


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """All that came of one training. Unmeasured is None."""

    status: OutcomeStatus
    started_at: str  #: UTC, ISO 8601
    duration_s: float
    epochs: tuple[EpochReport, ...] = ()
    metric: str | None = None
    validation_score: float | None = None  #: after the last epoch
    #: The last epoch's components, and of a completed trial those on further splits, such as "mismatched_accuracy".
    validation: Mapping[str, float] = field(default_factory=dict)
    test_score: float | None = None  #: after the last epoch; None where the task has no labelled test split
    test: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None  #: where the validation score peaked; the scores above are the last epoch's
    trained_params: int | None = None
    trained_params_without_head: int | None = None
    total_params: int | None = None
    examples_per_second: float | None = None  #: of this trial in training, evaluation left out
    pack_size: float | None = None  #: trials that trained together, itself included, as a mean over its steps
    peak_memory_bytes: int | None = None  #: of the device; of the process where the device is a CPU
    error: str | None = None  #: the traceback of a failed trial
    provenance: Mapping[str, str] = field(default_factory=dict)
    #: Of a completed trial that was asked to keep them, by split; no part of what makes two outcomes equal.
    predictions: Mapping[str, Predictions] = field(default_factory=dict, compare=False, repr=False)
    #: Of a completed trial that was asked to keep them; no part of what makes two outcomes equal either.
    weights: WeightFiles | None = field(default=None, compare=False, repr=False)


# Called after each epoch; False asks the training to stop there (the trial is then pruned).
Report = Callable[[EpochReport], bool]


def now() -> str:
    """The time as outcomes state it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def unstarted(status: OutcomeStatus, error: str | None, provenance: Mapping[str, str]) -> TrialOutcome:
    """The outcome of a trial that ended before its first step."""
    return TrialOutcome(status=status, started_at=now(), duration_s=0.0, error=error, provenance=provenance)
