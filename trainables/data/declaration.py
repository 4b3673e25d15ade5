"""task.json: what a task folder says of itself and of how its files are to be read."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from trainables.config import FOLDS_RULE, is_number_of_folds
from trainables.data.audit.checks import silence_faults
from trainables.data.columns import OURS
from trainables.data.paths import read_small
from trainables.data.reading import Format, Quoting
from trainables.data.rows import Declared

_Rule = tuple[str, Callable[[Any], bool]]


def _is_columns(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "text_a" in value
        and value.keys() <= set(OURS)
        and all(isinstance(column, str) or (ours == "label" and _is_flags(column)) for ours, column in value.items())
        and len(_columns_in(value)) == sum(1 if isinstance(column, str) else len(column) for column in value.values())
    )


def _is_flags(value: Any) -> bool:
    return _is_names(value) and len(value) == len(set(value)) >= 2


def _columns_in(columns: Mapping[str, str | list[str]]) -> set[str]:
    return {name for named in columns.values() for name in ([named] if isinstance(named, str) else named)}


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_label_names(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_label_name(name) is not None and _is_whole(key) for key, name in value.items())
    return isinstance(value, list) and all(_label_name(name) is not None for name in value)


def _label_name(value: Any) -> str | None:
    """What a label of this value is called, as those of files are: 1 and 1.0 are "1", true is "True"; else None."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value) if isinstance(value, str | int) else None


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdecimal() and text.isascii()


def _is_encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and "x".encode(value) != b""
    except (LookupError, ValueError):  # unknown, or none of text
        return False


# key of task.json -> its rule, and whether a value keeps it
_TASK: dict[str, _Rule] = {
    "name": ("a non-empty string without zero bytes", lambda v: isinstance(v, str) and bool(v) and "\0" not in v),
    "kind": ("a string", lambda v: isinstance(v, str)),
    "pair": ("true or false", lambda v: isinstance(v, bool)),
    "num_labels": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "label_names": (
        "a list of names, each a text, a whole number, true or false; or an object of label: name",
        _is_label_names,
    ),
    "label_separator": ("a text that stands between labels", lambda v: isinstance(v, str) and bool(v)),
    "metric": ("a string", lambda v: isinstance(v, str)),
    "silence": ("a list of names of warnings", _is_names),
    "folds": (FOLDS_RULE.removeprefix("must be "), is_number_of_folds),
}
_FORMAT: dict[str, _Rule] = {
    "columns": (
        'an object like {"text_a": "review", "label": "stars"}, text_b being the third key; a list of columns as label '
        "where each is a label; no column twice",
        _is_columns,
    ),
    "delimiter": ("one character", lambda v: isinstance(v, str) and len(v) == 1 and v not in '"\r\n'),
    "encoding": ("an encoding that Python knows, such as utf-8, cp1252 or utf-16", _is_encoding),
    "quoting": (" or ".join(get_args(Quoting)), lambda v: v in get_args(Quoting)),
    "header": (
        "a list with a name for every column, where no line of the files holds them",
        lambda v: _is_names(v) and len(v) > 0,
    ),
    "skip_bad_rows": ("true or false", lambda v: isinstance(v, bool)),
}
# What keys that mean the same are called elsewhere, without underscores.
_ELSEWHERE = {
    **dict.fromkeys(("id2label", "label2id", "labels", "classes", "classnames", "names"), "label_names"),
    **dict.fromkeys(("numclasses", "nclasses", "nlabels"), "num_labels"),
    **dict.fromkeys(("sep", "separator"), "delimiter"),
    **dict.fromkeys(("tasktype", "type", "task", "problemtype"), "kind"),
    **dict.fromkeys(("textcolumn", "labelcolumn", "text", "label", "texta", "textb"), "columns"),
    **dict.fromkeys(("kfolds", "numfolds", "nfolds", "cv"), "folds"),
}
# Remarks for people. Anything else is a slip of the pen, or something that would be left undone without a word.
_REMARKS = (
    "notes", "description", "comment", "source", "url", "homepage", "license", "citation", "language", "version",
    "author", "date", "rows", "paper_table",
)  # fmt: skip


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys must differ: Python would take the last value of each."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"every key must stand once, but {next(key for key in keys if keys.count(key) > 1)} does not")
    return values


def read_declaration(folder: Path, name: str | None) -> tuple[Declared, Format, list[str]]:
    """What task.json says, where there is one, and its faults; a faulty value counts as not said."""
    path, values, faults = folder / "task.json", {}, []
    if path.exists():
        try:
            values = json.loads(read_small(path, encoding="utf-8-sig"), object_pairs_hook=_each_once)
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeDecodeError as fault:
            faults.append(f"task.json cannot be read: save it as UTF-8, which it is not ({fault})")
        except UnicodeEncodeError:
            values = {}
            faults.append("task.json: every text must be of whole characters, but one has half of a surrogate pair")
        except (OSError, ValueError, RecursionError) as fault:
            faults.append(f"task.json cannot be read: {fault}")
        if not isinstance(values, dict):
            faults.append(f"task.json: must be an object, but is {type(values).__name__}")
            values = {}
    known = {**_TASK, **_FORMAT}
    for key in values.keys() - known.keys() - set(_REMARKS):
        same = _ELSEWHERE.get(key.lower().replace("_", ""))
        near = difflib.get_close_matches(key.lower(), [*known, *_REMARKS], n=1, cutoff=0.7)
        near = [same] if same else near
        hint = f"; did you mean {near[0]!r}?" if near else "."
        faults.append(
            f"task.json: unknown key {key!r}{hint} Known: {', '.join(known)}; and for remarks {', '.join(_REMARKS)}"
        )
    good: dict[str, Any] = {}
    for key, (rule, keeps) in known.items():
        if values.get(key) is None:
            continue
        if keeps(values[key]):
            good[key] = tuple(values[key]) if isinstance(values[key], list) else values[key]
        else:
            faults.append(f"task.json: {key} must be {rule}, but got {values[key]!r}")
    several = good.get("kind") == "multilabel" or "label_separator" in good
    asked = Format(**{key: good.pop(key) for key in _FORMAT if key in good}, may_be_several=several)
    if isinstance(names := good.get("label_names"), dict):
        pairs = sorted((int(key), called) for key, called in names.items())
        names = good["label_names"] = tuple(called for _, called in pairs)
        good["label_keys"] = tuple(key for key, _ in pairs)
    if names is not None:
        good["label_names"] = tuple(_label_name(name) for name in names)
    if asked.header is not None and asked.columns and (absent := _columns_in(asked.columns) - set(asked.header)):
        faults.append(f"task.json: columns names {', '.join(sorted(absent))}, which header does not")
        asked = dataclasses.replace(asked, columns=None)
    faults += [f"task.json: silence: {fault}" for fault in silence_faults(good.get("silence", ()))]
    good["name"] = name or good.get("name") or folder.name
    declared = Declared(**good, source=str(folder), skip_bad_rows=asked.skip_bad_rows)
    return declared, asked, sorted(faults)
