"""`adaptune data`: what a task folder holds and what is odd in it, without torch and without Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from orchestrator.analysis.files import replace_file
from orchestrator.analysis.text import wording
from orchestrator.cli.screen import console
from orchestrator.secrets import masked
from orchestrator.spec.spec import SweepSpec
from trainables.config import TrialConfig
from trainables.data.audit.checks import silence_faults
from trainables.data.audit.examine import Examination, examine, percentiles
from trainables.data.audit.suggestion import declared_in, suggest, written
from trainables.data.audit.word_pieces import find_reader
from trainables.data.folding import fold_of
from trainables.data.layout import DECLARATION
from trainables.data.paths import existing_path
from trainables.data.reachability import hurried
from trainables.faults import FaultsError
from trainables.task import Reading
from trainables.tasks import load

_MOST_WARNINGS = 5  # of a task, before a sweep
_MOST_CLASSES = 12  # in a table; the most frequent ones
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


def show_data(
    paths: Sequence[str],
    *,
    backbone: str | None,
    max_length: int | None,
    silence: Sequence[str],
    write: bool,
    as_json: bool,
) -> int:
    """Print what every task holds; 2 where one cannot be read, with all its faults, after the others."""
    if faults := [f"--silence: {fault}" for fault in silence_faults(silence)]:
        raise FaultsError("data", faults)
    reader = backbone or SweepSpec.model_fields["backbone"].default
    screen, answers, refused = console(), [], {}
    for path in paths:
        try:
            found = _examined(path, reader, max_length, silence)
            suggestion, wrote = _suggestion(path, found, write=write)
        except FaultsError as error:
            refused[path] = error
            continue
        answers.append(_answer(path, found, suggestion, wrote))
        if not as_json:
            if len(answers) > 1:
                screen.print()
            _show(screen, path, found, reader)
            _show_suggestion(screen, path, suggestion, wrote)
    if as_json:
        print(
            json.dumps(
                {"tasks": answers, "faults": {masked(path): list(error.faults) for path, error in refused.items()}}
            )
        )
    if len(refused) == len(paths) == 1 and not as_json:
        raise next(iter(refused.values()))
    for refusal in refused.values():
        console(stderr=True).print(str(refusal), soft_wrap=True)
    return 2 if refused else 0


def _examined(path: str, backbone: str, asked: int | None, silence: Sequence[str]) -> Examination:
    """What a training sees of a task: of one that is cut into folds, its first fold."""
    max_length = asked or _default_max_length(backbone)
    with hurried():  # a hub that is away costs some twenty seconds of retries, and lines about each
        task = load(path)
    if task.folds is None:
        return examine(task, backbone=backbone, max_length=max_length, silence=silence)
    seen = fold_of(task, task.folds, 0)
    found = examine(seen, backbone=backbone, max_length=max_length, silence=silence)
    notes = (*seen.notes, "below, validation is fold 0 and train are the others")
    return replace(found, task=replace(task, notes=notes))


def _default_max_length(backbone: str) -> int:
    """That of a trial, or all positions of a backbone that has fewer, as in a sweep that names none."""
    reader = find_reader(backbone)
    positions = reader.positions if reader is not None else None
    return min(TrialConfig.max_length, positions or TrialConfig.max_length)


def brief(warnings: pa.Table) -> list[str]:
    """What is shown before a sweep of `orchestrator.planning.preflight.data_warnings`: a line each, a few a task."""
    by_task: dict[str, list[str]] = {}
    for row in warnings.to_pylist():
        by_task.setdefault(row["task"], []).append(f"Data: task {row['task']}: {row['warning']}: {row['sentence']}")
    lines = []
    for task, found in by_task.items():
        lines += found[:_MOST_WARNINGS]
        if len(found) > _MOST_WARNINGS:
            lines.append(f"Data: task {task}: {wording.plural(len(found) - _MOST_WARNINGS, 'more warning')}")
    return [*lines, "`adaptune data` says more of each task, and how to silence a warning"] if lines else []


def _suggestion(path: str, found: Examination, *, write: bool) -> tuple[dict[str, Any] | None, str | None]:
    """The task.json that would say what was found, None where the task is no folder; and what was done about it."""
    folder = existing_path(path) if found.task.readings else None
    if folder is None:
        if write:
            raise FaultsError(f"task {path}", ["--write: only a task folder has a task.json"])
        return None, None
    declared = declared_in(folder)
    values = suggest(found.task, declared)
    if not write:
        return values, None
    if values == declared:
        return values, f"{folder / DECLARATION} says all of this, and is left as it is"
    try:
        replace_file(folder / DECLARATION, written(values).encode())
    except OSError as fault:
        raise FaultsError(f"task {path}", [f"--write: {DECLARATION} must be writable, but {fault}"]) from None
    if not declared:
        return values, f"Written: {folder / DECLARATION}"
    added = ", ".join(key for key in values if key not in declared)
    return values, f"Written: {folder / DECLARATION}, which was there; what it said stays, and new are {added}"


def _show(screen: Console, path: str, found: Examination, backbone: str) -> None:
    info = found.task.info
    kind = info.kind.replace("_", " ")
    what = f"{info.num_labels:,} classes, " if info.kind in ("classification", "multilabel") else ""
    texts = "pairs of texts, " if info.pair and info.kind != "extractive_qa" else ""
    scored = ""
    if info.metric == "f1" and info.num_labels == 2:
        scored = f" of class {info.label_names[1] if info.label_names else 1}"
    screen.print(f"{info.name}: {kind}, {what}{texts}metric {info.metric}{scored}", soft_wrap=True)
    read: dict[str, list[str]] = {}  # how -> what was read so
    for reading in found.task.readings:
        read.setdefault(_how(reading), []).append(_what(reading))
    for how, files in read.items():
        screen.print(f"  {', '.join(files)}{': ' if how else ''}{how}", soft_wrap=True)
    for note in found.task.notes:
        screen.print(f"  {note}", soft_wrap=True)
    screen.print(_table(found))
    for sentence in _lengths(found, backbone):
        screen.print(sentence, soft_wrap=True)
    if not found.warnings:
        screen.print("No warnings")
    for number, warning in enumerate(found.warnings, start=1):
        screen.print(f"Warning {number}, {warning.name}: {warning.sentence}", soft_wrap=True)
    if found.silenced:
        names = ", ".join(dict.fromkeys(warning.name for warning in found.silenced))
        screen.print(f"Silenced: {wording.plural(len(found.silenced), 'warning')} ({names})", soft_wrap=True)


def _show_suggestion(screen: Console, path: str, values: dict[str, Any] | None, wrote: str | None) -> None:
    if wrote is not None:
        screen.print(wrote, soft_wrap=True)
    elif values is not None and (folder := existing_path(path)) and values != declared_in(folder):
        screen.print(f"A task.json that says what was found (--write puts it there):\n{written(values)}", end="")


def _what(reading: Reading) -> str:
    files = reading.files[0] if len(reading.files) == 1 else f"{reading.files[0]} and {len(reading.files) - 1} more"
    left_out = f" ({reading.skipped:,} left out)" if reading.skipped else ""
    return f"{files} {wording.plural(reading.rows, 'row')}{left_out}"


def _how(reading: Reading) -> str:
    """How a split's files were read, in words that are the same for files read the same way."""
    form = reading.format
    said = []
    if "delimiter" in form:
        said.append(f"separated by {_DELIMITERS.get(form['delimiter'], repr(form['delimiter']))}")
    if "encoding" in form:
        said.append(form["encoding"].removesuffix("-sig").upper())
    if form.get("quoting", "none") != "none":
        within = {"standard": "doubled", "backslash": "after a backslash"}[form["quoting"]]
        said.append(f"quotation marks around texts, {within} within")
    if "header" in form:
        said.append("no line holds the names of columns")
    columns = form.get("columns", {})
    if columns:
        said.append(", ".join(_named(ours, theirs) for ours, theirs in columns.items()))
    used = {name for theirs in columns.values() for name in ([theirs] if isinstance(theirs, str) else theirs)}
    unused = [repr(name) if name.strip() else "an unnamed column" for name in reading.columns if name not in used]
    if columns and unused:
        said.append(f"not used: {', '.join(unused[:6])}{', ...' if len(unused) > 6 else ''}")
    return "; ".join(said)


def _named(ours: str, theirs: str | Sequence[str]) -> str:
    if isinstance(theirs, str):
        return f"{ours} is {theirs!r}" if ours != theirs else ours
    some = ", ".join(map(repr, theirs[:_MOST_CLASSES])) + (", ..." if len(theirs) > _MOST_CLASSES else "")
    return f"{ours}s are the columns {some}"


def _table(found: Examination) -> Table:
    """Splits side by side: rows, classes with their shares, the majority's accuracy, scores, characters."""
    splits = found.splits
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=True)
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    table.add_row("rows", *(f"{facts.rows:,}" for facts in splits.values()))
    classes = splits["train"].classes
    order = sorted(classes, key=lambda name: -classes[name])
    shown = [name for name in classes if name in set(order[:_MOST_CLASSES])]
    for name in shown:
        table.add_row(
            f"class {name if name == name.strip() != '' else repr(name)}",
            *(f"{facts.classes[name]:,} ({_percent(facts.classes[name], facts.rows)})" for facts in splits.values()),
        )
    if len(classes) > len(shown):
        rest = [sum(facts.classes.values()) - sum(facts.classes[name] for name in shown) for facts in splits.values()]
        table.add_row(f"{len(classes) - len(shown):,} rarer classes", *(f"{number:,}" for number in rest))
    if splits["train"].majority is not None:
        table.add_row("majority baseline (accuracy)", *(f"{facts.majority:.3f}" for facts in splits.values()))
    for name in splits["train"].scores:
        table.add_row(f"score, {name.replace('_', ' ')}", *(f"{facts.scores[name]:.4g}" for facts in splits.values()))
    for percent, what in (
        (50, "characters, median"),
        (95, "characters, 95 % have at most"),
        (100, "characters, longest"),
    ):
        table.add_row(what, *(f"{facts.characters[percent]:,}" for facts in splits.values()))
    return table


def _percent(number: int, of: int) -> str:
    return f"{number / of:.1%}" if of else "0%"


def _lengths(found: Examination, backbone: str) -> list[str]:
    pieces = found.pieces
    if pieces is None:
        return [
            f"Word pieces: unknown, since no tokenizer.json of {backbone} is on this machine (--backbone names another)"
        ]
    at_most = percentiles(pieces.lengths)
    sample = f" (of {len(pieces.lengths):,} rows drawn)" if len(pieces.lengths) < pieces.of_rows else ""
    return [
        f"Word pieces of {pieces.backbone}{sample}: median {at_most[50]:,}, 95 % of rows have at most {at_most[95]:,}, "
        f"longest {at_most[100]:,}; max_length {pieces.max_length} cuts {pieces.share_cut:.1%} of rows; "
        f"{pieces.unknown:.1%} are unknown"
    ]


def _answer(path: str, found: Examination, suggestion: dict[str, Any] | None, wrote: str | None) -> dict[str, Any]:
    """Every key there is, null where it does not apply."""
    info, pieces = found.task.info, found.pieces
    return {
        "path": masked(path),
        "name": info.name,
        "kind": info.kind,
        "metric": info.metric,
        "num_labels": info.num_labels,
        "label_names": list(info.label_names),
        "fingerprint": found.task.fingerprint,
        "readings": [{**asdict(reading), "format": dict(reading.format)} for reading in found.task.readings],
        "notes": list(found.task.notes),
        "splits": {name: asdict(facts) for name, facts in found.splits.items()},
        "word_pieces": None
        if pieces is None
        else {
            "backbone": pieces.backbone,
            "max_length": pieces.max_length,
            "rows": len(pieces.lengths),
            "percentiles": percentiles(pieces.lengths),
            "share_cut": pieces.share_cut,
            "share_unknown": pieces.unknown,
        },
        "warnings": [{"number": number, **asdict(warning)} for number, warning in enumerate(found.warnings, start=1)],
        "silenced": [asdict(warning) for warning in found.silenced],
        "task_json": suggestion,
        "written": wrote,
    }
