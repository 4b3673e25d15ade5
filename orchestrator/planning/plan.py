"""SweepSpec -> SweepPlan: every trial with its identity, and what is left of them.

Trials come from pairs of a task and an entry of `methods`, which know how a configuration becomes trials; see
`orchestrator.planning.task_method`.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import trainables.config
from orchestrator.planning.faults import (
    clashes,
    faults_by_backbone,
    method_faults,
    missing_data,
    non_inferiority_faults,
    preview_backbones,
    preview_tasks,
    register_faults,
    shared_space_faults,
)
from orchestrator.planning.search_algorithms import (
    Values,
    draw_configurations,
    enumerate_configurations,
    is_adaptive,
    search_faults,
    space_of,
)
from orchestrator.planning.task_method import PlannedTrial, TaskMethod
from orchestrator.planning.varied import Varied, varied_in_spaces, varied_in_trials
from orchestrator.spec.space import values_of
from orchestrator.spec.spec import SweepSpec, SweepSpecError, parse_leniently
from trainables.config import HYPERPARAMETERS, TrialConfig
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.estimate.preview import BackbonePreview, TaskPreview

__all__ = [
    "PlannedTrial",
    "SweepPlan",
    "TaskMethod",
    "Varied",
    "plan_sweep",
    "plan_table",
    "planned_from_table",
    "planned_hyperparameters",
    "remaining",
    "trials_table",
]

# Of what an adaptive search may come to propose, so many configurations of each task, backbone and method are tried for
# faults beforehand.
TRIED = 32


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What will run. `missing` says what cannot be had from this machine; such a plan can be looked at, not run.
    `notes` say what was decided or left out while the data were read.

    The `trials` of an adaptive search are not known beforehand: there are none, and `task_methods` say where it looks.
    """

    spec: SweepSpec
    trials: tuple[PlannedTrial, ...]
    task_methods: tuple[TaskMethod, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_adaptive(self) -> bool:
        """Whether the search learns from results, so that its trials are planned as it goes."""
        return is_adaptive(self.spec.search)

    @property
    def configurations(self) -> int:
        """How many distinct configurations the trials are replicates of; of an adaptive search, at most."""
        if self.is_adaptive:
            return sum(task_method.most_configurations for task_method in self.task_methods)
        return len({trial.config_id for trial in self.trials})

    @property
    def most_trials(self) -> int:
        """How many trials the sweep has, or an adaptive search at most."""
        if not self.is_adaptive:
            return len(self.trials)
        return sum(each.most_configurations * each.num_replicates for each in self.task_methods)

    @property
    def varied(self) -> Varied:
        """What tells trials of a method apart, beside task and replicate; of an adaptive search, what it searches."""
        return varied_in_spaces(self.task_methods) if self.is_adaptive else varied_in_trials(self.trials)

    def sample_trials(self) -> tuple[PlannedTrial, ...]:
        """The trials; of an adaptive search, as many drawn by chance in their stead, as random search would.

        The first of them are of all task-method pairs alike.
        """
        if not self.is_adaptive:
            return self.trials
        by_turns = itertools.zip_longest(*map(_drawn, self.task_methods), fillvalue=())
        return tuple(trial for turn in by_turns for replicates in turn for trial in replicates)


def plan_sweep(values: Any, *, allow_missing: bool = False) -> SweepPlan:
    """Plan a sweep from a `SweepSpec` or the raw values of one.

    With `allow_missing`, tasks and backbones known by name but out of reach are planned without their content: their
    ids are provisional and the plan cannot be run. Raises `SweepSpecError` holding every fault of the spec, of its
    tasks, its backbones and its methods.
    """
    spec, faults = parse_leniently(values)
    tasks, task_faults = preview_tasks(spec)
    faults += task_faults
    backbones, backbone_faults = preview_backbones(spec, faults)
    faults += backbone_faults
    faults += clashes(tasks)
    faults += faults_by_backbone(backbones, functools.partial(shared_space_faults, spec))
    for method in spec.methods:
        faults += faults_by_backbone(backbones, functools.partial(method_faults, method))
    faults += _search_faults(spec, faults)
    faults += non_inferiority_faults(spec)
    faults += register_faults(spec)
    missing = tuple(missing_data(tasks))
    if _is_backbone_read(spec):
        missing += tuple(reason for backbone in backbones.values() for reason in backbone.missing)
    if not allow_missing:
        faults += missing
    task_methods: tuple[TaskMethod, ...] = ()
    trials: tuple[PlannedTrial, ...] = ()
    if not faults:
        task_methods, faults = _task_methods(spec, tasks, backbones)
        trials, more = _trials(spec, task_methods)
        faults += more
    if faults:
        raise SweepSpecError(f"sweep {spec.name}", list(dict.fromkeys(faults)))
    notes = tuple(f"task {reference}: {note}" for reference, task in tasks.items() for note in task.notes)
    return SweepPlan(spec=spec, trials=trials, task_methods=task_methods, missing=missing, notes=notes)


def _search_faults(spec: SweepSpec, told: Sequence[str]) -> list[str]:
    """Those of the search that was asked for, without those of what stands in for parts of it that have been dropped.

    `told` are the faults that are known, for which they were.
    """
    places = {fault.partition(":")[0] for fault in told if fault.startswith(("search:", "search."))}
    if places and "algorithm" not in spec.search.model_fields_set:
        return []  # it would be judged as a grid, which nobody may have asked for
    return [fault for fault in search_faults(spec) if fault.partition(":")[0] not in places]


def remaining(plan: SweepPlan, finished: Collection[str]) -> tuple[PlannedTrial, ...]:
    """The planned trials whose ids are not among the finished ones.

    In the order of the plan, but that those which can train together come together: few trials are under way at once,
    and packs form among them.
    """
    done = set(finished)
    groups: dict[str, list[PlannedTrial]] = {}
    for trial in plan.trials:
        if trial.trial_id not in done:
            groups.setdefault(trial.pack_key or trial.trial_id, []).append(trial)
    return tuple(trial for group in groups.values() for trial in group)


def plan_table(plan: SweepPlan) -> pa.Table:
    """A row per planned trial; see `trials_table`. That of an adaptive plan has no row, and all columns."""
    if not plan.is_adaptive:
        return trials_table(plan.spec.name, plan.trials)
    samples = [next(_drawn(task_method), ()) for task_method in plan.task_methods]
    return trials_table(plan.spec.name, list(itertools.chain.from_iterable(samples))).slice(0, 0)


def trials_table(sweep: str, trials: Sequence[PlannedTrial]) -> pa.Table:
    """A row per trial: ids, names, hyperparameters, counts.

    `config` holds the TrialConfig as JSON and `provenance` the fingerprints; `outcome_version` is that of the code
    which gave the trial its identity.
    """
    hyperparameters = [trial.hyperparameters for trial in trials]
    folds = [trial.config.fold for trial in trials]  # of a plan without any, the table is what it always was
    names = list(dict.fromkeys(name for row in hyperparameters for name in row))
    text, whole = pa.string(), pa.int64()
    return pa.table(
        {
            "sweep": pa.array([sweep] * len(trials), text),
            **{key: pa.array([getattr(t, key) for t in trials], text) for key in ("trial_id", "config_id", "task")},
            **{key: pa.array([getattr(t.config, key) for t in trials], text) for key in ("backbone", "method")},
            "seed": pa.array([trial.config.seed for trial in trials], whole),
            **({"fold": pa.array(folds, whole)} if any(fold is not None for fold in folds) else {}),
            **{name: [row.get(name) for row in hyperparameters] for name in names},
            **{key: pa.array([getattr(trial, key) for trial in trials], whole) for key in _COUNTS},
            "pack_key": pa.array([trial.pack_key for trial in trials], text),
            "outcome_version": pa.array([trainables.config.OUTCOME_VERSION] * len(trials), whole),
            "provenance": pa.array([json.dumps(dict(trial.provenance)) for trial in trials], text),
            "config": pa.array([json.dumps(trial.config.to_dict()) for trial in trials], text),
        }
    )


_COUNTS = ("num_steps", "trained_params", "trained_params_without_head", "total_params")
_IDENTITY = ("sweep", "trial_id", "config_id", "task", "backbone", "method", "seed", "fold")
_ORIGIN = ("pack_key", "outcome_version", "provenance", "config")


def planned_hyperparameters(table: pa.Table) -> pa.Table:
    """Of a plan table the columns that hold hyperparameters, options of methods included."""
    return table.drop_columns([name for name in (*_IDENTITY, *_COUNTS, *_ORIGIN) if name in table.column_names])


def planned_from_table(table: pa.Table) -> list[PlannedTrial]:
    """The trials that the rows of a plan table stand for.

    What a table written by older code does not say is unknown; such a trial trains alone. Raises `FaultsError` naming
    every row that holds no trial of this version.
    """
    shared = [name for name in HYPERPARAMETERS if name in table.column_names]
    rows = table.select([*(name for name in _READ if name in table.column_names), *shared]).to_pylist()
    planned, faults = [], []
    for row in rows:
        try:
            config = TrialConfig.from_dict(json.loads(row["config"]))
            provenance = json.loads(row.get("provenance") or "{}")
        except FaultsError as error:
            faults += [f"trial {row['trial_id']}: {fault}" for fault in error.faults]
        except (ValueError, TypeError) as error:
            faults.append(f"trial {row['trial_id']}: its configuration must be JSON, but {error}")
        else:
            known = {name: row.get(name) for name in (*_COUNTS, "pack_key")}
            ids = {name: row[name] for name in ("trial_id", "config_id", "task")}
            unused = tuple(name for name in shared if row[name] is None and getattr(config, name) is not None)
            planned.append(PlannedTrial(**ids, config=config, provenance=provenance, unused=unused, **known))
    if faults:
        raise FaultsError("planned trials", faults)
    return planned


_READ = ("trial_id", "config_id", "task", "config", "provenance", "pack_key", *_COUNTS)


def _is_backbone_read(spec: SweepSpec) -> bool:
    """Whether any method of the sweep reads the backbone; one that is unknown might."""
    from trainables.methods import method_names, uses_backbone

    known = method_names()
    return any(entry.method not in known or uses_backbone(entry.method) for entry in spec.methods)


def _task_methods(
    spec: SweepSpec, tasks: Mapping[str, TaskPreview], backbones: Mapping[str, BackbonePreview]
) -> tuple[tuple[TaskMethod, ...], list[str]]:
    """Every task and backbone with every entry of `methods`, and the faults of tasks that a method cannot train.

    All of a backbone come before the next one's, so that engines seldom change what they have loaded. A method that
    reads no backbone is tried once, beside the first.
    """
    # Here, not above: planning needs torch, but `report` and `status` import this module for its types and must not.
    from trainables.methods import kind_faults, uses_backbone
    from trainables.training.loss import class_weight_faults

    task_methods: list[TaskMethod] = []
    faults: list[str] = []
    for backbone, (reference, task), entry in itertools.product(spec.backbones, tasks.items(), spec.methods):
        if kinds := kind_faults(entry.method, task.info):
            faults += kinds
            continue
        if backbone != spec.backbones[0] and not uses_backbone(entry.method):
            continue
        if backbone == spec.backbones[0]:  # these do not know it
            asked = values_of(space_of(spec, entry).get("class_weights", TrialConfig.class_weights))
            faults += [fault for value in asked for fault in class_weight_faults(str(value), task.info)]
        name = f"{task.info.name}:{entry.method}"
        again = sum(
            task_method.backbone_reference == backbone
            and task_method.reference == reference
            and task_method.entry.method == entry.method
            for task_method in task_methods
        )
        task_methods.append(
            TaskMethod(
                name=f"{name}:{again + 1}" if again else name,
                spec=spec,
                entry=entry,
                reference=reference,
                task=task,
                backbone_reference=backbone,
                backbone=backbones[backbone].info,
            )
        )
    return tuple(task_methods), faults + _length_faults(spec, task_methods)


def _length_faults(spec: SweepSpec, task_methods: Sequence[TaskMethod]) -> list[str]:
    """The values of max_length at which the texts of some task would not be seen, each with what would do.

    What is wrong with some tasks or backbones only is said with their names.
    """
    from trainables.estimate.preview import length_faults

    found: dict[tuple[str, str], dict[str, None]] = {}  # of fault and backbone the tasks
    for each in task_methods:
        try:
            faults = [
                fault
                for length in each.max_lengths
                for fault in length_faults(each.backbone, each.entry.method, each.task.info, length)
            ]
        except FaultsError as error:
            return list(error.faults)  # of a tokenizer, whatever the task
        for fault in faults:
            found.setdefault((fault, each.backbone_reference), {})[each.task.info.name] = None
    said = []
    for (fault, backbone), names in found.items():
        whose = [f"backbone {backbone}"] if len(spec.backbones) > 1 else []
        if len(names) < len(spec.tasks):
            whose.insert(0, f"task{'s' if len(names) > 1 else ''} {', '.join(names)}")
        said.append(f"{fault} ({'; '.join(whose)})" if whose else fault)
    return said


def _trials(spec: SweepSpec, task_methods: Sequence[TaskMethod]) -> tuple[tuple[PlannedTrial, ...], list[str]]:
    """Every trial, none twice, and the faults of configurations whose values are good one by one only.

    Of an adaptive search the faults alone, as far as a sample of its configurations shows them.
    """
    planned: dict[str, PlannedTrial] = {}
    faults: list[str] = []
    for task_method in task_methods:
        points: Iterable[Values] = enumerate_configurations(spec, task_method.entry, task_method.task.info.name)
        if is_adaptive(spec.search):
            points = itertools.islice(draw_configurations(spec, task_method.entry, task_method.task.info.name), TRIED)
        for values in points:
            try:
                replicates = task_method.trials(values)
            except FaultsError as error:
                whose = f" (backbone {task_method.backbone_reference})" if len(spec.backbones) > 1 else ""
                faults += [f"{fault}{whose}" for fault in error.faults]
                continue
            # Seed and fold come last in the order too: whole configurations finish one after another.
            for trial in replicates:
                planned.setdefault(trial.trial_id, trial)  # two entries of `methods` may overlap
    return () if is_adaptive(spec.search) else tuple(planned.values()), faults


def _drawn(task_method: TaskMethod) -> Iterator[tuple[PlannedTrial, ...]]:
    """The replicates of as many configurations as the task-method pair has; of fewer where some do not go together."""
    points = draw_configurations(task_method.spec, task_method.entry, task_method.task.info.name)
    for values in itertools.islice(points, task_method.most_configurations):
        try:
            yield task_method.trials(values)
        except FaultsError:
            continue
