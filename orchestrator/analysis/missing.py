"""What a figure or table would need and a sweep does not have, as sentences that travel with the answer's table.

They are the table's schema metadata, so Parquet keeps them, and whoever draws the table finds them there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa

_KEY = b"adaptune.missing"


def with_missing(table: pa.Table, sentences: Iterable[str]) -> pa.Table:
    """The same table, and with it what is missing; what it said before comes first."""
    told = list(dict.fromkeys([*missing_of(table), *sentences]))
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps(told).encode()})


def missing_of(table: pa.Table) -> list[str]:
    """What `with_missing` has said of a table; nothing of any other."""
    told = (table.schema.metadata or {}).get(_KEY)
    return [] if told is None else list(json.loads(told))


def missing_pairs(present: Collection[tuple[str, str]], tasks: Sequence[str], methods: Sequence[str]) -> list[str]:
    """A sentence per method for the tasks on which it has nothing to show.

    `present` holds pairs of task and method. "lora: no completed trial on trec, mrpc".
    """
    sentences = []
    for method in methods:
        if absent := [task for task in tasks if (task, method) not in present]:
            sentences.append(f"{method}: no completed trial on {', '.join(absent)}")
    return sentences
