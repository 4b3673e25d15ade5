"""How a number reads in a table, a figure or a report: rounded for people, a dash where it is unknown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialStatus

T = TypeVar("T")

UNKNOWN = "\N{EN DASH}"
_FINISHED_FIRST = (TrialStatus.COMPLETED, TrialStatus.PRUNED, TrialStatus.FAILED, TrialStatus.CANCELLED)


def _is_known(value: T | None) -> TypeGuard[T]:
    """Whether there is a number; what a training that diverged may have left, NaN or beyond all numbers, is none."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def plural(number: int, noun: str) -> str:
    """3 trials, 1 trial, 10,000 trials."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(numbers: Iterable[int], noun: str) -> str:
    """4 tasks; 3 to 4 tasks where the numbers differ."""
    low, high = min(found := list(numbers) or [0]), max(found)
    return plural(low, noun) if low == high else f"{low:,} to {plural(high, noun)}"


def replicates(number: int, num_folds: int | None) -> str:
    """What a mean is over: 3 seeds; 5 folds; 15 replicates (3 seeds on each of 5 folds); 14 replicates."""
    if num_folds is None:
        return plural(number, "seed")
    seeds, left = divmod(number, num_folds)
    if left or not seeds:
        return plural(number, "replicate")
    if seeds == 1:
        return plural(number, "fold")
    return f"{plural(number, 'replicate')} ({plural(seeds, 'seed')} on each of {plural(num_folds, 'fold')})"


def over(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the means of a table's rows are over, by their num_seeds and num_folds."""
    found = {(row["num_seeds"], row["num_folds"]) for row in rows if row["num_seeds"]}
    if len(found) == 1:
        return replicates(*found.pop())
    noun = "seed" if all(num_folds is None for _, num_folds in found) else "replicate"
    return span([number for number, _ in found], noun)


def most_folds(numbers: Iterable[int | None]) -> int | None:
    """Of several tasks the largest number of folds; None where none has folds."""
    return max((number for number in numbers if number is not None), default=None)


def score(mean: float | None, sem: float | None = None, num_seeds: int | None = None) -> str:
    """0.946 ± 0.003 (n=3); three decimals, as many as the noise between seeds ever leaves meaningful."""
    if not _is_known(mean):
        return UNKNOWN
    spread = f" ± {sem:.3f}" if _is_known(sem) else ""
    return f"{mean:.3f}{spread}{'' if num_seeds is None else f' (n={num_seeds})'}"


def reported(row: Mapping[str, Any]) -> str:
    """The score a row of `Results.best` or `recommend` is reported by: on test, or said to be on validation."""
    if row["test_mean"] is None and row["validation_mean"] is not None:
        return f"{score(row['validation_mean'], row['validation_sem'], row['num_seeds'])} on validation"
    return score(row["test_mean"], row["test_sem"], row["num_seeds"])


def method(row: Mapping[str, Any], *, backbones: Mapping[str, str]) -> str:
    """The method of a row, with its tuner where it is another library's, and its backbone where there are several.

    `backbones`: what each backbone is called; empty where there is one, which needs no name.
    """
    name = f"{row['method']} {row['peft_type']}" if row.get("peft_type") else str(row["method"])
    own = row["backbone"]
    return f"{name} on {backbones.get(own, own)}" if backbones and own is not None else name


def signed(value: float | None) -> str:
    """+0.012 or -0.004, with a minus sign as wide as the plus."""
    if not _is_known(value):
        return UNKNOWN
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A change in per cent: +0.4, -12.3 with a minus sign as wide as the plus, 0.0; a dash where it is NaN."""
    if not _is_known(value):
        return UNKNOWN
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def p_value(value: float | None) -> str:
    """As it stands after "p": = 0.031, = 0.25, < 0.001; a dash where it is unknown."""
    if not _is_known(value):
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def points(value: float | None) -> str:
    """A score in points, 0 to 100: 80.3, as leaderboards print it."""
    return f"{value:.1f}" if _is_known(value) else UNKNOWN


def count(number: int | float | None) -> str:
    """Three significant digits with k, M or B: 849, 2.38M, 109M."""
    if not _is_known(number):
        return UNKNOWN
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            digits = f"{number / size:#.3g}".rstrip(".")
            return f"{digits}{unit}"
    return f"{number:,.0f}"


def share(part: int | None, whole: int | None) -> str:
    """A percentage with three significant digits."""
    return UNKNOWN if part is None or not whole else f"{100 * part / whole:.3g} %"


def rate(per_second: float | None) -> str:
    """Examples a second: 1,240; 812; 3.4."""
    if not _is_known(per_second):
        return UNKNOWN
    return f"{per_second:,.0f}" if per_second >= 9.95 else f"{per_second:.1f}"


def engine(status: EngineStatus) -> str:
    """engine host/cpu: adapter on trec, 4 trials, 812 examples/s, 2 waiting."""
    if status.is_idle:
        return f"engine {status.engine}: idle"
    waiting = [f"{status.num_waiting} waiting"] if status.num_waiting else []
    if status.method is None:
        return f"engine {status.engine}: {', '.join(['preparing', *waiting])}"
    speed = [] if status.examples_per_second is None else [f"{rate(status.examples_per_second)} examples/s"]
    parts = [f"{status.method} on {status.task}", plural(status.num_trials, "trial"), *speed, *waiting]
    return f"engine {status.engine}: {', '.join(parts)}"


def duration(seconds: float | None) -> str:
    """42 s, 3 min 05 s, 2 h 10 min."""
    if not _is_known(seconds):
        return UNKNOWN
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def cell(value: Any) -> str:
    """Any value of a table: a hyperparameter, a name, a flag."""
    if value is None or value != value:  # a limit that is infinite is a value
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def hyperparameters(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """The hyperparameters of a row that apply to it: adapter_size 8, learning_rate 0.001."""
    return ", ".join(f"{name} {cell(row[name])}" for name in names if row.get(name) is not None)


def status_line(counts: Mapping[TrialStatus, int]) -> str:
    """81 trials: 80 completed, 1 failed. What has no record yet comes last, as "not yet run"."""
    total = sum(counts.values())
    if not total:
        return "No trials yet."
    parts = [f"{counts[status]:,} {status.value}" for status in _FINISHED_FIRST if counts.get(status)]
    pending = sum(number for status, number in counts.items() if status not in _FINISHED_FIRST)
    if pending:
        parts.append(f"{pending:,} not yet run")
    return f"{plural(total, 'trial')}: {', '.join(parts)}."


def count_tick(number: float) -> str:
    """A round number without decimals, for an axis: 500, 10k, 2M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"
