"""TaskMethod: one method on one task and backbone, and how a configuration of it becomes trials with identities.

Identity is content: `config_id` hashes everything that decides a trial's outcome except the seed and the fold, with the
data and the backbone as fingerprints of their content, never as paths, and with the number of folds; `trial_id` adds
the seed, and the fold where there are folds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trainables.config
from orchestrator.planning.search_algorithms import Space, Values, space_of
from orchestrator.spec.space import LogUniform, RandInt, Uniform, count_values, same, values_of
from orchestrator.spec.spec import MethodSpec, SweepSpec
from trainables.config import ADDED_HYPERPARAMETERS, HYPERPARAMETERS, Scalar, TrialConfig
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.backbones.loading import BackboneInfo
    from trainables.estimate.preview import TaskPreview
    from trainables.nn.encoder_shape import EncoderShape


def default_max_length(backbone: BackboneInfo | None) -> int:
    """Where a sweep names none: the one of a trial, or all positions of a backbone that has fewer."""
    return TrialConfig.max_length if backbone is None else min(TrialConfig.max_length, backbone.shape.max_length)


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One training at one configuration and seed, and on one fold, with what is known of it before it runs.

    Unknown is None.
    """

    trial_id: str
    config_id: str
    task: str  # the task's name; `config.task` is the reference it was found by
    config: TrialConfig
    num_steps: int | None = None
    trained_params: int | None = None
    trained_params_without_head: int | None = None
    total_params: int | None = None
    pack_key: str | None = None  # equal for trials that an engine can train together; None for one that trains alone
    provenance: Mapping[str, str] = field(default_factory=dict)  # fingerprints and sizes of data and backbone
    unused: tuple[str, ...] = ()  # hyperparameters that the method does not use, though the configuration has values

    @property
    def hyperparameters(self) -> dict[str, Scalar]:
        """Of the configuration, method options included; None where the method does not use one."""
        return self.config.hyperparameters() | dict.fromkeys(self.unused)


@dataclass(frozen=True, kw_only=True)
class TaskMethod:
    """One entry of `methods` on one task and backbone: the space in which a search finds configurations."""

    # No other one of this backbone has it. Chance draws by it, so that every backbone meets the same draws, and none
    # other ones once the sweep gets another backbone.
    name: str
    spec: SweepSpec
    entry: MethodSpec
    reference: str
    task: TaskPreview
    backbone_reference: str
    backbone: BackboneInfo | None

    @property
    def space(self) -> Space:
        """The entry's, with what all methods share and this one uses."""
        return space_of(self.spec, self.entry)

    @property
    def size(self) -> float:
        """How many configurations its space has; infinite where it has a range of numbers."""
        counts = [count_values(entry) for entry in self.space.values()]
        return math.inf if None in counts else math.prod(count for count in counts if count is not None)

    @property
    def most_configurations(self) -> int:
        """How many configurations an adaptive search trains: as many as asked for, or as the space has."""
        return int(min(self.spec.search.num_samples or 0, self.size))

    @property
    def num_replicates(self) -> int:
        """How many trials a configuration has."""
        return len(self.spec.seeds) * (self.task.folds or 1)

    @property
    def most_epochs(self) -> int:
        """The most epochs that any of its configurations trains."""
        from trainables.methods import unused_hyperparameters

        if "num_epochs" in unused_hyperparameters(self.entry.method):
            return 1
        return int(max(map(float, values_of(self.space.get("num_epochs", TrialConfig.num_epochs)))))  # type: ignore[arg-type]

    @property
    def max_lengths(self) -> tuple[int, ...]:
        """The values of max_length that its configurations have; of a range, both ends."""
        given = values_of(self.space.get("max_length", default_max_length(self.backbone)))
        return tuple(int(value) for value in given)  # type: ignore[arg-type]

    def trials(self, values: Mapping[str, Scalar]) -> tuple[PlannedTrial, ...]:
        """One configuration with each seed of the sweep, and of these with each fold of the task.

        Raises `FaultsError` where the values do not go together.
        """
        return _replicates(self, values)

    def point_of(self, config: TrialConfig) -> Values | None:
        """The values of the space that make this configuration; None where it lies outside."""
        held = config.hyperparameters()
        point: Values = {}
        for name, entry in self.space.items():
            if name not in held:
                return None
            value = held[name]
            if isinstance(entry, Uniform | LogUniform | RandInt):
                if isinstance(value, bool | str | None) or not entry.low <= value <= entry.high:
                    return None
                point[name] = value
            else:
                written = [each for each in values_of(entry) if self._is_written(name, each, held)]
                if not written:
                    return None
                point[name] = written[0]
        return point

    def _is_written(self, name: str, value: Scalar, held: Mapping[str, Scalar]) -> bool:
        """Whether a value, as it is written in the space, is what a configuration holds of it."""
        from trainables.estimate.preview import complete_options

        if same(value, held[name]) or name in HYPERPARAMETERS:
            return same(value, held[name])
        others = {option: other for option, other in held.items() if option not in HYPERPARAMETERS}
        shape = self.backbone.shape if self.backbone else None
        try:  # some methods pin what an option leaves open
            return same(complete_options(self.entry.method, {**others, name: value}, shape)[name], held[name])
        except FaultsError:
            return False

    def identity(self, config: TrialConfig) -> str:
        """The config_id of a configuration, with the task's rows and the backbone as they are today."""
        return _config_id(config, self.task, self.backbone)


def _replicates(task_method: TaskMethod, values: Mapping[str, Scalar]) -> tuple[PlannedTrial, ...]:
    """One configuration with each seed of the sweep, and of these with each fold of the task."""
    from trainables.backbones.loading import STAND_IN_SHAPE
    from trainables.engine.engine import pack_key
    from trainables.estimate.preview import complete_options, preview_parameters
    from trainables.methods import trial_faults, unused_hyperparameters, used_alone, uses_backbone
    from trainables.training.running_trial import num_steps

    spec, task, backbone, method = task_method.spec, task_method.task, task_method.backbone, task_method.entry.method
    shared: dict[str, Any] = {name: value for name, value in values.items() if name in HYPERPARAMETERS}
    given = {name: value for name, value in values.items() if name not in HYPERPARAMETERS}
    shape = backbone.shape if backbone else None if uses_backbone(method) else STAND_IN_SHAPE
    options = complete_options(method, given, shape)
    shared.setdefault("max_length", default_max_length(backbone))  # what the user asked for was checked
    first = used_alone(
        TrialConfig(
            task=task_method.reference,
            backbone=task_method.backbone_reference,
            method=method,
            method_options=options,
            seed=spec.seeds[0],
            **shared,
        )
    )
    counts = preview_parameters(first, shape, task.info) if shape else None
    config_id = task_method.identity(first)
    idle = unused_hyperparameters(method)
    unused = tuple(name for name in HYPERPARAMETERS if name in idle and getattr(first, name) is not None)
    folds = (None,) if task.folds is None else tuple(range(task.folds))
    by_fold: dict[int | None, dict[str, Any]] = {}
    faults: list[str] = []
    for fold in folds:  # what all seeds share; they have no part in the pack key
        config = dataclasses.replace(first, folds=task.folds, fold=fold)
        key, rows, train_rows = pack_key(config), task.rows_of(fold), task.training_rows_of(fold)
        steps = num_steps(config, train_rows) if train_rows else None
        faults += trial_faults(config, shape, steps) if shape else []
        by_fold[fold] = {
            "num_steps": steps,
            "pack_key": None if key is None else _digest(repr(key)),
            "provenance": {
                **({"data_fingerprint": task.fingerprint} if task.fingerprint else {}),
                **({"rows": _rows(rows)} if rows else {}),
                **({} if task.folds is None else {"folds": str(task.folds)}),
                **({"backbone_fingerprint": backbone.fingerprint} if backbone and backbone.fingerprint else {}),
                **(_sizes(backbone.shape) if backbone else {}),
            },
        }
    if faults:
        raise FaultsError("trial", list(dict.fromkeys(faults)))
    return tuple(
        PlannedTrial(
            trial_id=_digest([config_id, seed] if fold is None else [config_id, seed, fold]),
            config_id=config_id,
            task=task.info.name,
            config=dataclasses.replace(first, seed=seed, folds=task.folds, fold=fold),
            trained_params=counts.trained if counts else None,
            trained_params_without_head=counts.trained_without_head if counts else None,
            total_params=counts.total if counts else None,
            unused=unused,
            **by_fold[fold],
        )
        for seed, fold in itertools.product(spec.seeds, folds)
    )


def _rows(by_split: Mapping[str, int]) -> str:
    """4907 train, 545 validation, 500 test."""
    return ", ".join(f"{number} {split}" for split, number in by_split.items())


def _sizes(shape: EncoderShape) -> dict[str, str]:
    """What shares of a backbone are shares of: all of it without a head, and the layers of its encoder."""
    return {"backbone_params": str(shape.params), "encoder_params": str(shape.layers_params())}


def _config_id(config: TrialConfig, task: TaskPreview, backbone: BackboneInfo | None) -> str:
    from trainables.methods import identity_of, unused_hyperparameters, uses_backbone

    used = HYPERPARAMETERS.keys() - unused_hyperparameters(config.method)
    used -= {name for name in ADDED_HYPERPARAMETERS if getattr(config, name) == getattr(TrialConfig, name)}
    shared = {name: value for name, value in config.hyperparameters().items() if name in used}
    return _digest(
        {
            "outcome_version": trainables.config.OUTCOME_VERSION,
            "task": task.fingerprint or task.info.name,
            "backbone": ((backbone and backbone.fingerprint) or config.backbone)
            if uses_backbone(config.method)
            else "",
            "method": config.method,
            "hyperparameters": shared,
            "options": identity_of(config.method, config.method_options),
            **({} if task.folds is None else {"folds": task.folds}),
        }
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
