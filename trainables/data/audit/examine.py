"""A task examined: what it holds, in numbers, and the warnings of every check."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.data.audit.checks import checks
from trainables.data.audit.view import View
from trainables.data.audit.word_pieces import Pieces, cut_into_pieces, find_reader
from trainables.task import Task

PERCENTS = (5, 50, 95, 100)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much of a task is looked at."""

    most_rows: int | None  # of a split, as all checks see it, and
    most_bytes: int | None
    most_tokenized_rows: int
    most_tokenized_characters: int


WHOLE = Effort(most_rows=None, most_bytes=None, most_tokenized_rows=20_000, most_tokenized_characters=10_000_000)
# A fraction of a second a task, for a look before a sweep begins.
BRIEF = Effort(most_rows=20_000, most_bytes=3_000_000, most_tokenized_rows=1_000, most_tokenized_characters=300_000)


@dataclass(frozen=True, kw_only=True)
class DataWarning:
    """Something odd. Warnings of one name are silenced together."""

    name: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What a split holds. Scores and classes are those that apply to the task's kind; else they are empty."""

    rows: int
    classes: Mapping[str, int]  # by name, or by number where they have no names: in the order of the classes
    majority: (
        float | None
    )  # of a classification, the accuracy of always answering with the class that most rows of train have
    scores: Mapping[str, float]  # of a regression: mean, standard deviation (ddof 0), min, max
    characters: Mapping[int, int]  # percent -> so many have at most this percentage of rows; both texts of a pair


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What came of looking at a task."""

    task: Task
    splits: Mapping[str, SplitFacts]
    pieces: Pieces | None  # None where no tokenizer is at hand
    warnings: tuple[DataWarning, ...]
    silenced: tuple[DataWarning, ...]
    drawn_rows: Mapping[str, int]  # of which splits only so many rows were looked at


def examine(
    task: Task,
    *,
    backbone: str,
    max_length: int,
    silence: Collection[str] = (),
    effort: Effort = WHOLE,
) -> Examination:
    """Look at a task as a training with this backbone would. Equal calls give equal answers.

    `silence` are names of warnings beside those that the task itself silences. Raises `FaultsError` where the
    backbone's tokenizer is damaged.
    """
    reader = find_reader(backbone)
    pieces = None
    if reader is not None:
        pieces = cut_into_pieces(
            task.splits,
            reader,
            max_length=max_length,
            most_rows=effort.most_tokenized_rows,
            most_characters=effort.most_tokenized_characters,
        )
    view = View(task, pieces=pieces, most_rows=effort.most_rows, most_bytes=effort.most_bytes)
    found = [DataWarning(name=name, sentence=sentence) for name, check in checks().items() for sentence in check(view)]
    silent = {*silence, *task.silence}
    return Examination(
        task=task,
        splits={split: _facts(view, split) for split in task.splits},
        pieces=pieces,
        warnings=tuple(warning for warning in found if warning.name not in silent),
        silenced=tuple(warning for warning in found if warning.name in silent),
        drawn_rows={
            name: table.num_rows for name, table in view.splits.items() if table.num_rows < task.splits[name].num_rows
        },
    )


def _facts(view: View, split: str) -> SplitFacts:
    table = view.task.splits[split]
    classes: Mapping[str, int] = {}
    majority, scores = None, {}
    if view.has_classes:
        counts, names = view.counts, view.info.label_names
        classes = {names[i] if names else str(i): int(number) for i, number in enumerate(counts[split])}
    if view.is_classification:
        majority = float(counts[split][counts["train"].argmax()] / max(1, table.num_rows))
    elif view.info.kind == "regression":
        values = table["label"].to_numpy()
        scores = {
            name: float(value)
            for name, value in zip(
                ("mean", "standard_deviation", "min", "max"),
                (values.mean(), values.std(), values.min(), values.max()),
                strict=True,
            )
        }
    return SplitFacts(
        rows=table.num_rows,
        classes=classes,
        majority=majority,
        scores=scores,
        characters=percentiles(_characters(table)),
    )


def percentiles(lengths: np.ndarray) -> dict[int, int]:
    """The lengths (N,) that so many percent have at most: nearest rank, `PERCENTS`. None of no rows."""
    if not len(lengths):
        return {}
    values = np.percentile(lengths, PERCENTS, method="inverted_cdf")
    return {percent: int(value) for percent, value in zip(PERCENTS, values, strict=True)}


def _characters(table: pa.Table) -> np.ndarray:
    texts = [table[name] for name in ("text_a", "text_b") if name in table.column_names]
    return np.sum([pc.utf8_length(text).to_numpy() for text in texts], axis=0)
