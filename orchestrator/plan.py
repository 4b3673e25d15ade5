"""SweepSpec -> SweepPlan: every trial with its identity, and what is left of them.

Identity is content: `config_id` hashes everything that decides a trial's outcome except the seed, with the data and
the backbone as fingerprints of their content, never as paths; `trial_id` adds the seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orchestrator.enumeration import enumerate_configurations, search_faults
from orchestrator.space_faults import method_faults, shared_space_faults
from orchestrator.spec import SweepSpec, SweepSpecError, parse_leniently
from trainables.config import HYPERPARAMETERS, OUTCOME_VERSION, Scalar, TrialConfig
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.backbone import BackboneInfo
    from trainables.preview import TaskPreview


DEFAULT_MAX_LENGTH = TrialConfig.max_length


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One training at one configuration and seed, with what is known of it before it runs. Unknown is None."""

    trial_id: str
    config_id: str
    task: str  # the task's name; `config.task` is the reference it was found by
    config: TrialConfig
    num_steps: int | None = None
    trained_params: int | None = None
    trained_params_without_head: int | None = None
    total_params: int | None = None
    pack_key: str | None = None  # equal for trials that an engine can train together; None for one that trains alone
    provenance: Mapping[str, str] = field(default_factory=dict)  # fingerprints of data and backbone


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What will run. `missing` says what cannot be had from this machine; such a plan can be looked at, not run."""

    spec: SweepSpec
    trials: tuple[PlannedTrial, ...]
    missing: tuple[str, ...] = ()

    @property
    def configurations(self) -> int:
        """How many distinct configurations the trials are replicates of."""
        return len({trial.config_id for trial in self.trials})


def plan_sweep(values: Any, *, allow_missing: bool = False) -> SweepPlan:
    """Plan a sweep from a `SweepSpec` or the raw values of one.

    With `allow_missing`, tasks and backbones known by name but out of reach are planned without their content: their
    ids are provisional and the plan cannot be run. Raises `SweepSpecError` holding every fault of the spec, of its
    tasks, its backbone and its methods.
    """
    # Here, not above: planning needs torch, but `report` and `status` import this module for its types and must not.
    from trainables.preview import BackbonePreview, preview_backbone

    spec, faults = parse_leniently(values)
    tasks, task_faults = _preview_tasks(spec)
    faults += task_faults
    try:
        backbone = preview_backbone(spec.backbone)
    except FaultsError as error:
        faults += error.faults
        backbone = BackbonePreview(info=None)
    faults += _clashes(tasks)
    faults += shared_space_faults(spec, backbone.info)
    for method in spec.methods:
        faults += method_faults(method, backbone.info)
    faults += search_faults(spec)
    missing = (*_missing_data(tasks), *(backbone.missing if _is_backbone_read(spec) else ()))
    if not allow_missing:
        faults += missing
    trials: tuple[PlannedTrial, ...] = ()
    if not faults:
        trials, faults = _trials(spec, tasks, backbone.info)
    if faults:
        raise SweepSpecError(f"sweep {spec.name}", list(dict.fromkeys(faults)))
    return SweepPlan(spec=spec, trials=trials, missing=missing)


def remaining(plan: SweepPlan, finished: Collection[str]) -> tuple[PlannedTrial, ...]:
    """The planned trials whose ids are not among the finished ones, in the order of the plan."""
    done = set(finished)
    return tuple(trial for trial in plan.trials if trial.trial_id not in done)


def plan_table(plan: SweepPlan) -> pa.Table:
    """A row per planned trial: ids, names, hyperparameters, counts; `config` holds the TrialConfig as JSON."""
    hyperparameters = [trial.config.hyperparameters() for trial in plan.trials]
    names = list(dict.fromkeys(name for row in hyperparameters for name in row))
    counts = ("num_steps", "trained_params", "trained_params_without_head", "total_params")
    return pa.table(
        {
            "sweep": pa.array([plan.spec.name] * len(plan.trials), pa.string()),
            **{key: [getattr(trial, key) for trial in plan.trials] for key in ("trial_id", "config_id", "task")},
            **{key: [getattr(trial.config, key) for trial in plan.trials] for key in ("backbone", "method", "seed")},
            **{name: [row.get(name) for row in hyperparameters] for name in names},
            **{key: pa.array([getattr(trial, key) for trial in plan.trials], pa.int64()) for key in counts},
            "config": [json.dumps(trial.config.to_dict()) for trial in plan.trials],
        }
    )


def _preview_tasks(spec: SweepSpec) -> tuple[dict[str, TaskPreview], list[str]]:
    """What is known of each task, by its reference, and the faults of those of which nothing is."""
    from trainables.preview import preview_task

    tasks, faults = {}, []
    for reference in spec.tasks:
        try:
            tasks[reference] = preview_task(reference)
        except FaultsError as error:
            faults += [f"task {reference}: {fault}" for fault in error.faults]
    return tasks, faults


def _is_backbone_read(spec: SweepSpec) -> bool:
    """Whether any method of the sweep reads the backbone; one that is unknown might."""
    from trainables.methods import method_names, uses_backbone

    known = method_names()
    return any(entry.method not in known or uses_backbone(entry.method) for entry in spec.methods)


def _missing_data(tasks: Mapping[str, TaskPreview]) -> list[str]:
    """Why data cannot be had, said once for all tasks it is true of."""
    by_reason: dict[str, list[str]] = {}
    for reference, task in tasks.items():
        for reason in task.missing:
            by_reason.setdefault(reason, []).append(reference)
    return [
        f"task{'s' if len(references) > 1 else ''} {', '.join(references)}: {reason}"
        for reason, references in by_reason.items()
    ]


def _trials(
    spec: SweepSpec, tasks: Mapping[str, TaskPreview], backbone: BackboneInfo | None
) -> tuple[tuple[PlannedTrial, ...], list[str]]:
    """Every trial, none twice, and the faults of configurations whose values are good one by one only."""
    from trainables.methods import kind_faults

    planned: dict[str, PlannedTrial] = {}
    faults: list[str] = []
    for reference, task in tasks.items():
        for method in spec.methods:
            if kinds := kind_faults(method.method, task.info):
                faults += kinds
                continue
            for values in enumerate_configurations(spec, method, task.info.name):
                try:
                    replicates = _replicates(spec, reference, task, backbone, method.method, values)
                except FaultsError as error:
                    faults += error.faults
                    continue
                # The seed comes last in the order too: whole configurations finish one after another.
                for trial in replicates:
                    planned.setdefault(trial.trial_id, trial)  # two entries of `methods` may overlap
    return tuple(planned.values()), faults


def _replicates(
    spec: SweepSpec,
    reference: str,
    task: TaskPreview,
    backbone: BackboneInfo | None,
    method: str,
    values: Mapping[str, Scalar],
) -> list[PlannedTrial]:
    """One configuration with each seed of the sweep."""
    from trainables.backbone import STAND_IN_SHAPE
    from trainables.engine import pack_key
    from trainables.methods import uses_backbone
    from trainables.preview import complete_options, preview_parameters

    shared: dict[str, Any] = {name: value for name, value in values.items() if name in HYPERPARAMETERS}
    given = {name: value for name, value in values.items() if name not in HYPERPARAMETERS}
    shape = backbone.shape if backbone else None if uses_backbone(method) else STAND_IN_SHAPE
    options = complete_options(method, given, shape)
    if backbone:  # the default is for encoders that read so much; what the user asked for was checked
        shared.setdefault("max_length", min(DEFAULT_MAX_LENGTH, backbone.shape.max_length))
    first = TrialConfig(
        task=reference, backbone=spec.backbone, method=method, method_options=options, seed=spec.seeds[0], **shared
    )
    counts = preview_parameters(first, shape, task.info) if shape else None
    config_id = _config_id(first, task, backbone)
    key = pack_key(first)  # the seed has no part in it
    steps = max(1, task.train_rows * first.num_epochs // first.batch_size) if task.train_rows else None
    return [
        PlannedTrial(
            trial_id=_digest([config_id, seed]),
            config_id=config_id,
            task=task.info.name,
            config=TrialConfig(**{**dict(first.items()), "seed": seed}),
            num_steps=steps,
            trained_params=counts.trained if counts else None,
            trained_params_without_head=counts.trained_without_head if counts else None,
            total_params=counts.total if counts else None,
            pack_key=None if key is None else _digest(repr(key)),
            provenance={
                **({"data_fingerprint": task.fingerprint} if task.fingerprint else {}),
                **({"backbone_fingerprint": backbone.fingerprint} if backbone and backbone.fingerprint else {}),
            },
        )
        for seed in spec.seeds
    ]


def _config_id(config: TrialConfig, task: TaskPreview, backbone: BackboneInfo | None) -> str:
    from trainables.methods import identity_of, uses_backbone

    shared = {name: value for name, value in config.hyperparameters().items() if name in HYPERPARAMETERS}
    return _digest(
        {
            "outcome_version": OUTCOME_VERSION,
            "task": task.fingerprint or task.info.name,
            "backbone": ((backbone and backbone.fingerprint) or config.backbone)
            if uses_backbone(config.method)
            else "",
            "method": config.method,
            "hyperparameters": shared,
            "options": identity_of(config.method, config.method_options),
        }
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _clashes(tasks: Mapping[str, TaskPreview]) -> list[str]:
    """Tasks that a table could not tell apart, or whose trials would be the same by content."""
    by_name: dict[str, list[str]] = {}
    by_content: dict[str, list[str]] = {}
    for reference, task in tasks.items():
        by_name.setdefault(task.info.name, []).append(reference)
        if task.fingerprint:
            by_content.setdefault(task.fingerprint, []).append(reference)
    same_name = [
        f"tasks: every task must have a name of its own, but {' and '.join(references)} are all called {name!r}"
        for name, references in by_name.items()
        if len(references) > 1
    ]
    same_rows = [
        f"tasks: every task must have rows of its own, but {' and '.join(references)} hold the same"
        for references in by_content.values()
        if len(references) > 1
    ]
    return same_name + same_rows
