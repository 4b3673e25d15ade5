"""Which waiting trial gets which engine: the rules of the pool, without its clockwork. Needs no Ray.

An engine keeps to what it has loaded while there is work of that kind, and trials that need no GPU go where none is
once those with one are busy. No engine that could train a waiting trial is left idle.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from orchestrator.planning.plan import PlannedTrial

# What one core computes in a second, in products of float32, and for how long it may compute the features of a task
# before its trials are better off waiting for a GPU.
CORE_OPERATIONS_PER_S = 3e10
LONGEST_FEATURES_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Wants:
    """What a trial asks of an engine, beside a place in its pack."""

    backbone: str | None = None  # an engine holds one, with what was computed with it; None: any will do
    loads: tuple[str, ...] = ()  # names of what an engine loads for the first trial that needs it, and then keeps
    runs_on_cpu: bool = False  # whether it goes to an engine on CPUs where others have GPUs


ANYTHING = Wants()


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A trial that waits for an engine."""

    key: str | None  # equal for trials that an engine can train together; None for one that trains alone
    wants: Wants


class Lendable(Protocol):
    """What has to be known of an engine."""

    @property
    def is_helper(self) -> bool:
        """Whether it is on CPUs while others have GPUs."""

    @property
    def num_trials(self) -> int: ...

    @property
    def loaded(self) -> Collection[str]:
        """Names of what it has loaded."""

    def takes(self, key: str | None) -> bool:
        """Whether a trial of this key can begin there: alone, or in the pack that trains."""


E = TypeVar("E", bound=Lendable)


def missing(wants: Wants, engine: Lendable) -> int:
    """How much an engine would have to load for a trial."""
    return sum(name not in engine.loaded for name in wants.loads)


def next_loan(waiting: Sequence[Waiting], engines: Sequence[E]) -> tuple[int, E] | None:
    """The place of a waiting trial, the oldest first, and the engine it gets; None where no engine can take any.

    Of all trials and engines that go together, those come first, one rule after the other,

    - that leave GPUs to trials which need one: a trial that does not goes to an engine on CPUs where no engine with a
      GPU takes it, or where the GPU that is idle is waited for;
    - whose engine trains the fewest;
    - for which the least has to be loaded;
    - whose trial has waited longest.
    """
    firsts: dict[Waiting, int] = {}
    for place, trial in enumerate(waiting):
        firsts.setdefault(trial, place)  # of equal ones only the oldest can come next
    able = {trial: [engine for engine in engines if _suits(trial, engine)] for trial in firsts}
    gpus_are_waited_for = any(able[trial] for trial in firsts if not trial.wants.runs_on_cpu)
    found = [
        ((_rank(trial, engine, gpus_are_waited_for), engine.num_trials, missing(trial.wants, engine), place), engine)
        for trial, place in firsts.items()
        for engine in able[trial]
    ]
    if not found:
        return None
    (*_, place), engine = min(found, key=lambda pair: pair[0])
    return place, engine


def _suits(trial: Waiting, engine: Lendable) -> bool:
    return (trial.wants.runs_on_cpu or not engine.is_helper) and engine.takes(trial.key)


def _rank(trial: Waiting, engine: Lendable, gpus_are_waited_for: bool) -> int:
    if engine.is_helper:
        return 1
    return 2 if trial.wants.runs_on_cpu and gpus_are_waited_for and not engine.num_trials else 0


def wants_of(trial: PlannedTrial) -> Wants:
    """What a planned trial asks of an engine.

    It runs on CPUs where it needs no backbone, or where all it needs of one are the features of each row, which are
    computed once a task, and a core computes them within `LONGEST_FEATURES_S`.
    """
    from trainables.methods import uses_backbone  # here: it comes with torch

    config = trial.config
    task = config.task if config.fold is None else f"{config.task} without fold {config.fold} of {config.folds}"
    if not uses_backbone(config.method):
        return Wants(loads=(f"{task} as read by {config.method}",), runs_on_cpu=True)
    return Wants(
        backbone=config.backbone,
        loads=(config.backbone, f"{task} for {config.backbone} up to {config.max_length}"),
        runs_on_cpu=trial.trained_params_without_head == 0 and _features_s(trial) <= LONGEST_FEATURES_S,
    )


def _features_s(trial: PlannedTrial) -> float:
    """At most so many seconds a core computes the features of all rows of a trial's task; infinite where unknown."""
    sizes = trial.provenance
    if "encoder_params" not in sizes or "rows" not in sizes:
        return float("inf")
    rows = sum(int(part.split()[0]) for part in sizes["rows"].split(", "))
    return 2 * int(sizes["encoder_params"]) * trial.config.max_length * rows / CORE_OPERATIONS_PER_S
