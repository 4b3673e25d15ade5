"""What the checks look at: a task's rows, and what several checks need of them, made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainables.data.same_texts import joined, numbered, plain
from trainables.metrics import METRICS
from trainables.predictions import label_values
from trainables.task import Task

if TYPE_CHECKING:
    from trainables.data.audit.word_pieces import Pieces

_COUNTED = 10_000  # classes that are counted though no row has them
_SHOWN = 60  # characters of a text


class View:
    """A task as the checks see it. Of a split of more rows or bytes, as many are drawn with a fixed seed."""

    def __init__(
        self,
        task: Task,
        *,
        pieces: Pieces | None = None,
        most_rows: int | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self.task = task
        self.info = task.info
        self.pieces = pieces
        self.splits: Mapping[str, pa.Table] = {
            name: _drawn(table, most_rows, most_bytes) for name, table in task.splits.items()
        }

    @property
    def is_classification(self) -> bool:
        return self.info.kind == "classification"

    @property
    def has_classes(self) -> bool:
        """Whether rows have classes, be it one each or any number of them."""
        return self.info.kind in ("classification", "multilabel")

    @property
    def metric_is_accuracy(self) -> bool:
        """Whether the score is the share of right answers alone."""
        return list(METRICS[self.info.metric].parts) == ["accuracy"]

    def class_name(self, label: int) -> str:
        """A class as messages call it: by its name, in quotation marks, else by its number."""
        return repr(self.info.label_names[label]) if self.info.label_names else str(label)

    def classes(self, labels: Sequence[int], at_most: int = 5) -> str:
        """Some classes, and that there are more."""
        return ", ".join(map(self.class_name, labels[:at_most])) + (", ..." if len(labels) > at_most else "")

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """The rows of each class, int64 (num_labels,), by split, of all rows, drawn or not; where there are classes.

        Where a text may have several labels, a row counts for each of them. Classes beyond the first 10,000 are left
        out where no row has them: a task may declare more than memory holds.
        """
        labels = {name: label_values(table["label"].combine_chunks()) for name, table in self.task.splits.items()}
        if self.info.kind == "multilabel":
            return {name: values.sum(axis=0, dtype=np.int64) for name, values in labels.items()}
        seen = max((int(values.max()) + 1 for values in labels.values() if len(values)), default=0)
        length = max(seen, min(self.info.num_labels, _COUNTED))
        return {name: np.bincount(values, minlength=length) for name, values in labels.items()}

    @cached_property
    def exact(self) -> dict[str, np.ndarray]:
        """A number for the texts of each row, int64 (N,), by split: equal where the texts are."""
        return self._numbered(self._joined)

    @cached_property
    def plain(self) -> dict[str, np.ndarray]:
        """The same but for capitals, blanks and punctuation: equal where the texts differ in nothing else."""
        return self._numbered(plain(self._joined))

    def text(self, split: str, row: int) -> str:
        """The beginning of a row's text, to be found again in a file."""
        return shortened(self.splits[split]["text_a"][int(row)].as_py())

    def columns(self) -> Iterator[tuple[str, str, pa.ChunkedArray]]:
        """Every column of texts: its split, its name and its values."""
        for split, table in self.splits.items():
            for name in ("text_a", "text_b"):
                if name in table.column_names:
                    yield split, name, table[name]

    @cached_property
    def _joined(self) -> pa.Array:
        """The texts of all rows of all splits, one split after the other."""
        parts = [joined(table) for table in self.splits.values()]
        return pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())

    def _numbered(self, texts: pa.Array) -> dict[str, np.ndarray]:
        numbers = numbered(texts)
        ends = np.cumsum([table.num_rows for table in self.splits.values()])
        return dict(zip(self.splits, np.split(numbers, ends[:-1]), strict=True))


def shortened(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _drawn(table: pa.Table, most_rows: int | None, most_bytes: int | None) -> pa.Table:
    rows = table.num_rows if most_rows is None else min(most_rows, table.num_rows)
    if most_bytes is not None and table.nbytes > most_bytes:
        rows = min(rows, max(1, most_bytes * table.num_rows // table.nbytes))
    if rows == table.num_rows:
        return table
    return table.take(pa.array(np.sort(np.random.default_rng(0).permutation(table.num_rows)[:rows])))
