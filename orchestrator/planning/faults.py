"""What is wrong with a spec's spaces and tasks, and what of them cannot be had here, as plug-ins and backbone tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.spec.space import values_of
from orchestrator.spec.spec import MethodSpec, SweepSpec
from trainables.config import HYPERPARAMETERS, check_hyperparameter
from trainables.faults import FaultsError, unknown_name

if TYPE_CHECKING:
    from trainables.backbones.loading import BackboneInfo
    from trainables.estimate.preview import BackbonePreview, TaskPreview


def shared_space_faults(spec: SweepSpec, backbone: BackboneInfo | None) -> list[str]:
    """Every fault of the hyperparameters that all methods share."""
    faults = []
    for name, entry in spec.space.items():
        if name in HYPERPARAMETERS:
            faults += _value_faults(f"space.{name}", name, entry, backbone)
        else:
            rule = unknown_name("hyperparameter", f"space.{name}", HYPERPARAMETERS)
            faults.append(f"{rule} (options of a method stand below the method)")
    return faults


def non_inferiority_faults(spec: SweepSpec) -> list[str]:
    """What is wrong with the claim that a spec declares: it must be about a method of the sweep."""
    methods = [entry.method for entry in spec.methods]
    if spec.non_inferiority is None or spec.non_inferiority.reference in methods:
        return []
    fault = unknown_name("method of this sweep", spec.non_inferiority.reference, methods)
    return [f"non_inferiority.reference: {fault}"]


def register_faults(spec: SweepSpec) -> list[str]:
    """What is wrong with asking for a registered model: there must be weights, and models of them, to register."""
    if spec.register_model is None:
        return []
    lacking = [
        *(["keep is none, which keeps no weights"] if spec.keep == "none" else []),
        *(["log_models is false"] if not spec.log_models else []),
    ]
    return [f"register_model: needs models of the winners, but {' and '.join(lacking)}"] if lacking else []


def method_faults(entry: MethodSpec, backbone: BackboneInfo | None) -> list[str]:
    """Every fault of a method, its options and the hyperparameters below it."""
    from trainables.estimate.preview import complete_options
    from trainables.methods import backbone_faults, option_names, unused_hyperparameters

    try:
        options = option_names(entry.method)
    except FaultsError as error:
        return [f"methods: {fault}" for fault in error.faults]
    faults: list[str] = []
    own: dict[str, Any] = {}
    for name, domain in entry.space.items():
        if name in unused_hyperparameters(entry.method):
            rule = "must not be given, since the method does not use it (of a `space` that all share, it is left out)"
            faults.append(f"{entry.method}.{name}: {rule}")
        elif name in HYPERPARAMETERS:
            faults += _value_faults(f"{entry.method}.{name}", name, domain, backbone)
        elif name in options:
            own[name] = domain
        else:
            faults.append(unknown_name(f"option of method {entry.method}", name, [*options, *HYPERPARAMETERS]))
    # An option may be good or bad by the others, so each value is tried beside what the others are.
    beside = {name: values_of(domain)[0] for name, domain in own.items()}
    for values in [
        beside,
        *({**beside, name: value} for name, domain in own.items() for value in values_of(domain)[1:]),
    ]:
        try:
            completed = complete_options(entry.method, values, backbone.shape if backbone else None)
            faults += backbone_faults(entry.method, completed, backbone.fingerprint if backbone else None)
        except FaultsError as error:
            faults += error.faults
    return faults


def _value_faults(where: str, name: str, entry: Any, backbone: BackboneInfo | None) -> list[str]:
    faults = []
    for value in values_of(entry):
        fault = check_hyperparameter(name, value)
        if fault is None and name == "max_length" and backbone and isinstance(value, int):
            longest = backbone.shape.max_length
            fault = f"max_length: must be at most {longest}, the backbone's positions" if value > longest else None
            fault = fault and f"{fault}, but got {value}"
        if fault:
            faults.append(f"{where}: {fault.removeprefix(f'{name}: ')}")
    return faults


def preview_backbones(spec: SweepSpec, told: Sequence[str]) -> tuple[dict[str, BackbonePreview], list[str]]:
    """What is known of each backbone, by its reference, and the faults of those of which nothing is.

    `told` are the faults of the spec. Where what it names as backbone has been dropped for one, nothing is known: the
    default stands there, and its sizes are not those of what was asked for.
    """
    from trainables.estimate.preview import BackbonePreview, preview_backbone

    if "backbone" not in spec.model_fields_set and any(fault.startswith(("backbone:", "backbone.")) for fault in told):
        return dict.fromkeys(spec.backbones, BackbonePreview(info=None)), []
    backbones: dict[str, BackbonePreview] = {}
    faults: list[str] = []
    for reference in spec.backbones:
        try:
            backbones[reference] = preview_backbone(reference)
        except FaultsError as error:
            faults += error.faults
            backbones[reference] = BackbonePreview(info=None)
    return backbones, faults + _same_weights(backbones)


def _same_weights(backbones: Mapping[str, BackbonePreview]) -> list[str]:
    """Backbones whose trials would be the same by content."""
    by_content: dict[str, list[str]] = {}
    for reference, backbone in backbones.items():
        if backbone.info and backbone.info.fingerprint:
            by_content.setdefault(backbone.info.fingerprint, []).append(reference)
    return [
        f"backbone: every backbone must be another one, but {' and '.join(references)} are the same by their content"
        for references in by_content.values()
        if len(references) > 1
    ]


def faults_by_backbone(
    backbones: Mapping[str, BackbonePreview], find: Callable[[BackboneInfo | None], list[str]]
) -> list[str]:
    """What `find` finds wrong with each backbone; what is wrong with some of them only, with their names."""
    found: dict[str, list[str]] = {}
    for reference, backbone in backbones.items():
        for fault in dict.fromkeys(find(backbone.info)):
            found.setdefault(fault, []).append(reference)
    return [
        fault if len(references) == len(backbones) else f"{fault} (backbone {' and '.join(references)})"
        for fault, references in found.items()
    ]


def preview_tasks(spec: SweepSpec) -> tuple[dict[str, TaskPreview], list[str]]:
    """What is known of each task, by its reference, and the faults of those of which nothing is."""
    from trainables.estimate.preview import preview_task

    tasks, faults = {}, []
    for reference in spec.tasks:
        try:
            tasks[reference] = preview_task(reference, spec.folds)
        except FaultsError as error:
            faults += [f"task {reference}: {fault}" for fault in error.faults]
    return tasks, faults


def missing_data(tasks: Mapping[str, TaskPreview]) -> list[str]:
    """Why data cannot be had, said once for all tasks it is true of."""
    by_reason: dict[str, list[str]] = {}
    for reference, task in tasks.items():
        for reason in task.missing:
            by_reason.setdefault(reason, []).append(reference)
    return [
        f"task{'s' if len(references) > 1 else ''} {', '.join(references)}: {reason}"
        for reason, references in by_reason.items()
    ]


def clashes(tasks: Mapping[str, TaskPreview]) -> list[str]:
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
