"""Relative folders and files of a sweep made absolute, so that engines elsewhere, and later resumes, find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.spec.backbones import names_in
from orchestrator.spec.space import Choice, Grid
from orchestrator.spec.spec import MethodSpec, SweepSpec
from trainables.data.paths import existing_path


def with_absolute_paths(values: Any) -> Any:
    """A spec, or the raw values of one, with its task folders, its backbones and the files its methods' options name.

    What is no path of anything here is left as it is, for the plan to refuse.
    """
    if isinstance(values, SweepSpec):
        own = tuple(MethodSpec(method=each.method, space=_options(each.method, each.space)) for each in values.methods)
        return values.model_copy(
            update={"tasks": _tasks(values.tasks), "backbone": _backbones(values.backbone), "methods": own}
        )
    if not isinstance(values, Mapping):
        return values
    found = dict(values)
    tasks, methods = values.get("tasks"), values.get("methods")
    if isinstance(tasks, list | tuple):
        found["tasks"] = _tasks(tasks)
    if values.get("backbone"):
        found["backbone"] = _backbones(values["backbone"])
    if isinstance(methods, list | tuple):
        found["methods"] = [_entry(entry) for entry in methods]
    return found


def _tasks(tasks: Sequence[Any]) -> tuple[Any, ...]:
    from trainables.tasks import families

    known = families()

    def task(reference: Any) -> Any:
        if not isinstance(reference, str) or not reference:
            return reference
        family, slash, _ = reference.partition("/")
        is_known_by_name = slash and family in known  # a folder may well be called as a family is
        return reference if is_known_by_name else _absolute(reference, folders_only=True)

    return tuple(task(reference) for reference in tasks)


def _backbones(value: Any) -> Any:
    """One backbone, or the list that a list or grid of them is."""
    if isinstance(value, str):
        return _absolute(value, folders_only=True)
    if (names := names_in(value)) is None:
        return value
    return tuple(_absolute(name, folders_only=True) if isinstance(name, str) and name else name for name in names)


def _entry(entry: Any) -> Any:
    """An entry of `methods` in any of its forms."""
    if not isinstance(entry, Mapping):
        return entry
    if isinstance(entry.get("space"), Mapping) and isinstance(entry.get("method"), str):
        return {**entry, "space": _options(entry["method"], entry["space"])}
    return {name: _options(name, space) if isinstance(space, Mapping) else space for name, space in entry.items()}


def _options(method: str, space: Mapping[str, Any]) -> dict[str, Any]:
    # Here: only methods know which of their options are paths, and those need torch.
    from trainables.methods import method_names, reference_names

    names = reference_names(method) if method in method_names() else ()
    return {key: _domain(value) if key in names else value for key, value in space.items()}


def _domain(value: Any) -> Any:
    if isinstance(value, str):
        return ",".join(_absolute(part.strip()) for part in value.split(","))
    if isinstance(value, Grid | Choice):
        return type(value)([_domain(each) for each in value.values])
    if isinstance(value, Mapping):
        return {
            name: [_domain(each) for each in part] if isinstance(part, list) else part for name, part in value.items()
        }
    return value


def _absolute(reference: str, *, folders_only: bool = False) -> str:
    path = existing_path(reference)
    return reference if path is None or (folders_only and not path.is_dir()) else str(path.resolve())
