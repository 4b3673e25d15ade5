"""What makespan.py races over: the tasks, the opponents and the trials that environment variables ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import NotMeasuredError, _opponent

TRIALS_VARIABLE = "ADAPTUNE_BENCH_TRIALS"
EPOCHS_VARIABLE = "ADAPTUNE_BENCH_EPOCHS"

SIZES = (8, 64)
# In the order in which a race of fewer trials takes them: far from each other first.
LEARNING_RATES = (1e-3, 3e-3, 3e-4, 2e-3)
SEEDS = (0, 1)
NUM_EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial, the same on all sides."""

    adapter_size: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Race:
    """Who trains what."""

    tasks: Sequence[str]  # references
    opponents: Sequence[str]
    trials: Sequence[Trial]
    num_epochs: int


def grid() -> list[Trial]:
    """All trials, both seeds of a configuration one after the other.

    Two configurations differ in size and rate, four have both sizes and every rate, eight are all.
    """
    turned = [*SIZES[1:], *SIZES[:1]]
    configurations = [
        (sizes[place % len(sizes)], rate) for sizes in (SIZES, turned) for place, rate in enumerate(LEARNING_RATES)
    ]
    return [Trial(adapter_size=size, learning_rate=rate, seed=seed) for size, rate in configurations for seed in SEEDS]


def parse(environment: Mapping[str, str]) -> Race:
    """The race that the variables ask for. Raises `NotMeasuredError` with every fault of them."""
    faults: list[str] = []
    tasks = _read(_opponent.named_tasks, environment, faults)
    opponents = _read(_opponent.named_opponents, environment, faults)
    every = grid()
    num_trials = _number(environment, TRIALS_VARIABLE, len(every), faults)
    if num_trials is not None and (num_trials % len(SEEDS) or not len(SEEDS) <= num_trials <= len(every)):
        rule = f"an even number from {len(SEEDS)} to {len(every)}, since a configuration is trained with both seeds"
        faults.append(f"{TRIALS_VARIABLE} must be {rule}, but is {num_trials}")
    num_epochs = _number(environment, EPOCHS_VARIABLE, NUM_EPOCHS, faults)
    if num_epochs is not None and num_epochs < 1:
        faults.append(f"{EPOCHS_VARIABLE} must be at least 1, but is {num_epochs}")
    if faults or num_trials is None or num_epochs is None:
        raise NotMeasuredError("; ".join(faults))
    return Race(tasks=tasks, opponents=opponents, trials=every[:num_trials], num_epochs=num_epochs)


def _read(
    read: Callable[[Mapping[str, str]], Sequence[str]], environment: Mapping[str, str], faults: list[str]
) -> Sequence[str]:
    try:
        return read(environment)
    except NotMeasuredError as fault:
        faults.append(str(fault))
        return ()


def _number(environment: Mapping[str, str], name: str, default: int, faults: list[str]) -> int | None:
    text = environment.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        faults.append(f"{name} must be a whole number, but is {text!r}")
        return None
