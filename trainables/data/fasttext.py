"""Lines in fastText's format: `__label__`, a label, a blank and the text."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trainables.data.reading import LINE, SKIP, Format, Rows, at_lines

PREFIX = "__label__"


def read_fasttext(lines: Sequence[str], asked: Format) -> Rows:
    """The rows of a file that begins with a label of fastText's. Rows of several labels are faults."""
    texts, labels, numbers, bare, several = [], [], [], [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        first, _, rest = line.strip("\r\n").partition(" ")
        if not first.startswith(PREFIX) or first == PREFIX:
            bare.append(number)
        elif rest.lstrip().startswith(PREFIX):
            several.append(number)
        else:
            labels.append(first.removeprefix(PREFIX))
            texts.append(rest.strip())
            numbers.append(number)
    faults = []
    rows = len(numbers) + len(bare) + len(several)
    if bare and not asked.skip_bad_rows:
        faults.append(
            f"every line must begin with {PREFIX} and a label, but {at_lines(bare)} of {rows:,} do not. Mend them, "
            f"or leave such rows out by {SKIP}"
        )
    if several and not asked.skip_bad_rows:
        faults.append(
            f"every line must have one label, but {at_lines(several)} of {rows:,} have several (multi-label is not "
            f"supported). Keep one, or leave such rows out by {SKIP}"
        )
    left_out = sorted(bare + several) if asked.skip_bad_rows else []
    return Rows(
        table=pa.table({"text_a": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string()), LINE: numbers}),
        names=("text_a", "label"),
        faults=faults,
        notes=["is in fastText's format"]
        + ([f"left out {len(left_out)} broken rows: {at_lines(left_out)}"] if left_out else []),
        skipped=len(left_out),
    )
