"""Lines in fastText's format: `__label__`, a label, a blank or a tab, and the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from trainables.data.reading import LINE, SKIP, Format, Rows, at_lines

PREFIX = "__label__"


def read_fasttext(lines: Sequence[str], asked: Format) -> Rows:
    """The rows of a file that begins with a label of fastText's; lists of labels where a line has several."""
    texts, labels, numbers, bare = [], [], [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        first, rest = _first_word(line)
        if not first.startswith(PREFIX) or first == PREFIX:
            bare.append(number)
        else:
            of_line, text = [first.removeprefix(PREFIX)], rest
            while text.startswith(PREFIX) and _first_word(text)[0] != PREFIX:
                first, text = _first_word(text)
                of_line.append(first.removeprefix(PREFIX))
            labels.append(of_line)
            texts.append(text)
            numbers.append(number)
    faults = []
    rows = len(numbers) + len(bare)
    if bare and not asked.skip_bad_rows:
        faults.append(
            f"every line must begin with {PREFIX} and a label, but {at_lines(bare)} of {rows:,} do not. Mend them, "
            f"or leave such rows out by {SKIP}"
        )
    left_out = bare if asked.skip_bad_rows else []
    notes = ["is in fastText's format"]
    if any(len(of_line) > 1 for of_line in labels):
        notes.append("some lines have several labels (multilabel)")
        label = pa.array(labels, pa.list_(pa.string()))
    else:
        label = pa.array([of_line[0] for of_line in labels], pa.string())
    return Rows(
        table=pa.table({"text_a": pa.array(texts, pa.string()), "label": label, LINE: numbers}),
        names=("text_a", "label"),
        faults=faults,
        notes=notes + ([f"left out {len(left_out)} broken rows: {at_lines(left_out)}"] if left_out else []),
        skipped=len(left_out),
    )


def _first_word(text: str) -> tuple[str, str]:
    """What is before the first blank or tab of a text, and what is after it."""
    first, *rest = re.split(r"[ \t]", text.strip("\r\n"), maxsplit=1)
    return first, rest[0].strip() if rest else ""
