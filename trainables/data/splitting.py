"""Rows without splits cut as Houlsby et al. 2019 cut their additional tasks.

The paper gives the sizes of its splits (Table 3) and not which rows are in them. Its sizes are all of one rule; which
rows are in which split is decided here by a fixed seed, the same on every machine and for every trial.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WHOLE = "all"  # what rows without splits are called: a file all.csv
RULE = "cut at random (seed 0) into 80 % train, 10 % validation, 10 % test"
_SEED = 0


def split_sizes(num_rows: int) -> tuple[int, int, int]:
    """Rows of train, validation and test: floor(0.8 N), floor((N - train) / 2), the rest.

    It gives all 17 rows of Table 3 of Houlsby et al. 2019.
    """
    train = num_rows * 8 // 10
    validation = (num_rows - train) // 2
    return train, validation, num_rows - train - validation


def split_rows(table: pa.Table) -> dict[str, pa.Table]:
    """A table's rows in random order, as train, validation and test.

    The order sorts rows by one number of Philox each, whose stream numpy keeps from version to version (which row a
    number falls to depends on the order of the table alone). Raises `ValueError` where there are too few rows.
    """
    sizes = split_sizes(table.num_rows)
    if min(sizes) < 1:
        raise ValueError(f"{WHOLE}: must have at least 6 rows to be cut into three splits, but has {table.num_rows}")
    order = np.argsort(np.random.Philox(key=_SEED).random_raw(table.num_rows), kind="stable")
    ends = np.cumsum(sizes)
    parts = zip(("train", "validation", "test"), np.split(order, ends[:-1]), strict=True)
    splits = {name: table.take(pa.array(rows)) for name, rows in parts}
    if pc.count_distinct(splits["train"]["label"]).as_py() < 2:
        raise ValueError(f"{WHOLE}: must have more rows, since all those that fall to train have one label")
    return splits
