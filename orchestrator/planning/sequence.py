"""SequenceSpec -> SequencePlan: each training of a sequence with its identity, and what is evaluated after it.

Identity is content, as in a sweep: `step_id` hashes the trial's, the rows it is cut to, and for a model that goes on
from task to task the step it starts from. So a sequence that is run again, or with more tasks, seeds or methods, trains
only what is new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.planning.plan import PlannedTrial, SweepPlan, plan_sweep
from orchestrator.spec.sequence import SequenceSpec, parse_sequence
from trainables import metrics
from trainables.config import TrialConfig
from trainables.faults import FaultsError
from trainables.task import TaskInfo


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One task of a sequence, trained by one method with one seed, and every task so far evaluated after it."""

    step_id: str  #: of what is trained
    row_id: str  #: of what is trained and what is evaluated after it
    method: str
    is_sequential: bool  #: whether it goes on from the step before, else from the backbone
    place: int  #: of its task in the order of its seed, from 0
    task: str  #: the task's name
    split: str  #: that the task is evaluated on: test, or validation where it has no labelled test rows
    config: TrialConfig
    earlier: tuple[PlannedStep, ...]  #: the steps before it, in their order


@dataclass(frozen=True, kw_only=True)
class SequencePlan:
    """What will be trained and evaluated. `steps` come task after task: of every method and seed the first, and so on.

    `notes` say what was decided or left out while the data were read.
    """

    spec: SequenceSpec
    steps: tuple[PlannedStep, ...]
    notes: tuple[str, ...] = ()


def plan_sequence(values: Any) -> SequencePlan:
    """Plan a sequence from the values of its file. Raises `FaultsError` with every fault of it and of its parts."""
    spec, faults = parse_sequence(values)
    plan: SweepPlan | None = None
    try:
        plan = plan_sweep(spec.sweep)
    except FaultsError as error:
        faults += [fault for fault in error.faults if fault not in faults]
    infos: dict[str, TaskInfo] = {}
    splits: dict[str, str] = {}
    if plan is not None:
        infos = {each.reference: each.task.info for each in plan.task_methods}
        splits = {
            each.reference: "test" if "test" in each.task.rows_by_split else "validation" for each in plan.task_methods
        }
        faults += _task_faults(spec, infos) + _statistics_faults(spec, plan)
        faults += [
            f"task {name}: must declare no folds, since a sequence trains each task once a seed; take `folds` out of "
            "its task.json"
            for name in dict.fromkeys(trial.task for trial in plan.trials if trial.config.fold is not None)
        ]
    if faults or plan is None:
        raise FaultsError(f"sequence {spec.name}", list(dict.fromkeys(faults)))
    return SequencePlan(spec=spec, steps=_steps(spec, plan.trials, splits), notes=plan.notes)


def order_of(spec: SequenceSpec, seed: int) -> tuple[str, ...]:
    """The references of the tasks in the order in which this seed meets them."""
    if not spec.shuffle:
        return spec.sweep.tasks
    # Sorted by a number of Philox each, whose stream numpy keeps from version to version.
    drawn = np.random.Philox(key=seed).random_raw(len(spec.sweep.tasks))
    return tuple(spec.sweep.tasks[place] for place in np.argsort(drawn, kind="stable"))


def _task_faults(spec: SequenceSpec, infos: Mapping[str, TaskInfo]) -> list[str]:
    faults = [
        f"task {info.name}: its metric must be one of which more is better, to be averaged with others, but is "
        f"{info.metric}"
        for info in infos.values()
        if metrics.get(info.metric).mode != "max"
    ]
    answers = [info.name for info in infos.values() if info.kind == "extractive_qa"]
    if spec.sequential and 0 < len(answers) < len(infos):
        faults.append(
            f"sequential: {' and '.join(spec.sequential)} cannot go on between tasks whose heads read different things "
            f"of the encoder, but {', '.join(answers)} is extractive question answering and others are not; leave "
            "them out, or name no method as sequential"
        )
    return faults


def _statistics_faults(spec: SequenceSpec, plan: SweepPlan) -> list[str]:
    """The fault of each sequential method whose weights are no model without statistics of the batches it saw."""
    from trainables.backbones.loading import STAND_IN_SHAPE
    from trainables.estimate.preview import keeps_statistics

    first = {each.entry.method: each for each in reversed(plan.task_methods)}
    faults = []
    for trial in {trial.config.method: trial for trial in plan.trials}.values():
        method, config = first[trial.config.method], trial.config
        shape = method.backbone.shape if method.backbone else STAND_IN_SHAPE
        if config.method in spec.sequential and keeps_statistics(config, shape, method.task.info):
            rule = "cannot go on from task to task with statistics of its batches (batch normalisation)"
            faults.append(f"sequential: {config.method} {rule}; do without these, or name it not as sequential")
    return faults


def _steps(spec: SequenceSpec, trials: Sequence[PlannedTrial], splits: Mapping[str, str]) -> tuple[PlannedStep, ...]:
    by_key = {(trial.config.task, trial.config.method, trial.config.seed): trial for trial in trials}
    chains: dict[tuple[str, int], tuple[PlannedStep, ...]] = {}
    for method in spec.methods:
        for seed in spec.sweep.seeds:
            chain: tuple[PlannedStep, ...] = ()
            for task in order_of(spec, seed):
                chain += (_step(spec, by_key[task, method, seed], splits[task], chain),)
            chains[method, seed] = chain
    return tuple(step for steps in zip(*chains.values(), strict=True) for step in steps)


def _step(spec: SequenceSpec, trial: PlannedTrial, split: str, earlier: tuple[PlannedStep, ...]) -> PlannedStep:
    is_sequential = trial.config.method in spec.sequential
    start = earlier[-1].step_id if is_sequential and earlier else None
    step_id = _digest([trial.trial_id, spec.max_train_rows, spec.max_evaluation_rows, start])
    return PlannedStep(
        step_id=step_id,
        row_id=_digest([step_id, split, [step.step_id for step in earlier]]),
        method=trial.config.method,
        is_sequential=is_sequential,
        place=len(earlier),
        task=trial.task,
        split=split,
        config=trial.config,
        earlier=earlier,
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
