"""What the run of a configuration shows: the mean of its replicates and the mean's standard error. Knows no MLflow."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking.run_fields import (
    CONFIG_ID,
    KIND,
    NOTE,
    STATUS,
    SWEEP,
    Point,
    TrialFacts,
    end_ms,
    start_ms,
    text,
)

SHOWN = "adaptune.shown_sha256"  # of all that a configuration's run shows, to tell whether that is still so

_SIZES = ("trained_params", "trained_params_without_head", "total_params")


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """What a configuration remembers of the end of one of its trials."""

    seed: int
    fold: int | None
    status: TrialStatus
    validation_score: float | None
    test_score: float | None
    start_ms: int | None
    end_ms: int

    @staticmethod
    def of(record: TrialRecord) -> EndedTrial:
        return EndedTrial(
            seed=record.seed,
            fold=record.fold,
            status=record.status,
            validation_score=record.validation_score,
            test_score=record.test_score,
            start_ms=start_ms(record),
            end_ms=end_ms(record),
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that a configuration's run shows once its trials have ended."""

    status: TrialStatus
    start_ms: int | None
    end_ms: int
    points: Sequence[Point]
    tags: Mapping[str, str]


@dataclass(kw_only=True)
class Configuration:
    """A configuration's trials as far as they have ended. Mutable: it follows them."""

    facts: TrialFacts  # of one of its trials
    ended: dict[str, EndedTrial] = field(default_factory=dict)  # trial_id -> its end
    metric: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, record: TrialRecord) -> None:
        """A trial has ended; what was known of an earlier attempt at it is forgotten."""
        self.ended[record.trial_id] = EndedTrial.of(record)
        self.metric = record.metric or self.metric
        self.sizes |= {name: value for name in _SIZES if (value := getattr(record, name)) is not None}

    def again(self, trial_id: str) -> None:
        """A trial trains again."""
        self.ended.pop(trial_id, None)

    def tags(self, sweep: str) -> dict[str, str]:
        """Those of its run that do not change."""
        return {KIND: "configuration", CONFIG_ID: self.facts.config_id, SWEEP: sweep}

    def params(self) -> dict[str, str]:
        """Those of its trials, but for seed and fold."""
        return {key: value for key, value in self.facts.params().items() if key not in ("seed", "fold")}

    def has_ended(self, num_seeds: int) -> bool:
        """Whether all its trials have, where so many seeds are planned."""
        return len(self.ended) >= self.num_trials(num_seeds)

    def num_trials(self, num_seeds: int) -> int:
        """How many it has where so many seeds are planned."""
        return num_seeds * (self.facts.folds or 1)

    def shown(self, num_seeds: int) -> Shown:
        """What its run shows, where so many seeds are planned.

        Metrics: of the completed trials' validation and test scores `mean/...` and `sem/...`, the standard error of the
        mean (ddof = 1; absent for one score); `num_seeds`, how many trials have completed, which is also the step of
        the points; and the sizes. Equal ends give equal points.
        """
        completed = [trial for trial in self.ended.values() if trial.status is TrialStatus.COMPLETED]
        end = max((trial.end_ms for trial in self.ended.values()), default=0)
        values: dict[str, float] = {"num_seeds": float(len(completed)), **self.sizes}
        for name in ("validation_score", "test_score"):
            scores = [score for trial in completed if (score := getattr(trial, name)) is not None]
            if mean_and_sem := _mean_and_sem(scores):
                mean, sem = mean_and_sem
                values |= {f"mean/{name}": mean} | ({} if sem is None else {f"sem/{name}": sem})
        status = self._status(num_seeds)
        tags = {STATUS: status.value, NOTE: text(self._note(values, num_seeds))}
        starts = [trial.start_ms for trial in self.ended.values() if trial.start_ms is not None]
        points = [Point(key, float(value), end, len(completed)) for key, value in values.items()]
        tags[SHOWN] = hashlib.sha256(json.dumps([tags, points and values, end]).encode()).hexdigest()
        return Shown(status=status, start_ms=min(starts, default=None), end_ms=end, points=points, tags=tags)

    def _status(self, num_seeds: int) -> TrialStatus:
        """Completed where all trials are; failed where one has; else cancelled or pruned."""
        found = {trial.status for trial in self.ended.values()}
        if TrialStatus.FAILED in found:
            return TrialStatus.FAILED
        if not self.has_ended(num_seeds) or TrialStatus.CANCELLED in found:
            return TrialStatus.CANCELLED
        return TrialStatus.PRUNED if TrialStatus.PRUNED in found else TrialStatus.COMPLETED

    def _note(self, values: Mapping[str, float], num_seeds: int) -> str:
        """Its description in Markdown: the means in a sentence, the trials in a table."""
        said = [
            f"{split} {plus_minus(mean, values.get(f'sem/{split}_score'))}"
            for split in ("validation", "test")
            if (mean := values.get(f"mean/{split}_score")) is not None
        ]
        trials, folds = self.num_trials(num_seeds), self.facts.folds
        noun = "seeds" if folds is None else "folds" if num_seeds == 1 else f"trials ({num_seeds} seeds, {folds} folds)"
        head = f"{round(values['num_seeds'])} of {trials} {noun} completed"
        metric = f" ({self.metric}, mean ± standard error of the mean)" if self.metric else ""
        lines = [f"{head}: {', '.join(said)}{metric}." if said else f"{head}.", ""]
        columns = ["seed", *([] if folds is None else ["fold"]), "status", "validation", "test"]
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        for trial in sorted(self.ended.values(), key=lambda trial: (trial.seed, trial.fold or 0)):
            which = [str(trial.seed), *([] if folds is None else [str(trial.fold)])]
            cells = [*which, trial.status.value, score(trial.validation_score), score(trial.test_score)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def score(value: float | None) -> str:
    """A score with four digits, a dash where it is not known."""
    return "–" if value is None else f"{value:.4f}"  # noqa: RUF001


def plus_minus(mean: float | None, sem: float | None) -> str:
    """A mean with its standard error, where it has one."""
    return score(mean) if sem is None else f"{score(mean)} ± {sem:.4f}"


def _mean_and_sem(scores: Sequence[float]) -> tuple[float, float | None] | None:
    if not scores:
        return None
    if not all(map(math.isfinite, scores)):
        return math.nan, None
    sem = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
    return statistics.fmean(scores), sem
