"""What failed: every distinct error once, with its whole text and the trials that ended with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.text import tables, wording
from orchestrator.record import TrialStatus, replicate

_MOST_ERRORS = 50  # on the page, and
_MOST_TRIALS = 50  # of each; trials.csv has all
_MOST_CHARACTERS = 20_000  # of one error; a deep recursion can fill a megabyte


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One error: its last line, its text, the trials that it ended, and how many of these are not in the table."""

    line: str
    text: str
    num_trials: int
    table: tables.TextTable
    left_out: int


def failures(trials: pa.Table, names: Sequence[str]) -> tuple[list[Failure], int]:
    """The errors of the failed trials, the most frequent first, and how many trials failed with one that is left out.

    `names` are the hyperparameters to show, such as `Results.searched`.
    """
    failed = trials.filter(pc.equal(trials["status"], TrialStatus.FAILED.value))
    backbones = backbone_names(trials)
    wanted = {"task", "method", "peft_type", "backbone", "seed", "fold", "trial_id", "error", *names}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in failed.select([name for name in failed.column_names if name in wanted]).to_pylist():
        groups.setdefault((row["error"] or "").strip(), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [_failure(text, rows, names, backbones) for text, rows in ordered[:_MOST_ERRORS]]
    return shown, sum(len(rows) for _, rows in ordered[_MOST_ERRORS:])


def _failure(text: str, rows: Sequence[dict[str, Any]], names: Sequence[str], backbones: Mapping[str, str]) -> Failure:
    table = tables.TextTable(
        title="The trials that ended with it",
        left=("task", "method", "configuration", "trial"),
        right=("seed",),
        rows=tuple(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                wording.hyperparameters(row, names),
                row["trial_id"],
                replicate(row["seed"], row["fold"]).removeprefix("seed "),
            )
            for row in rows[:_MOST_TRIALS]
        ),
    )
    return Failure(
        line=(text.splitlines() or ["no error was recorded"])[-1],
        text=_cut(text),
        num_trials=len(rows),
        table=table,
        left_out=max(0, len(rows) - _MOST_TRIALS),
    )


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out; trials.csv has them]\n{text[-half:]}"
