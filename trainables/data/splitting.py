"""Rows without splits cut as Houlsby et al. 2019 cut their additional tasks, and validation rows cut off train.

The paper gives the sizes of its splits (Table 3) and not which rows are in them. Its sizes are all of one rule; which
rows are in which split is decided here by a fixed seed, the same on every machine and for every trial.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from trainables.predictions import label_values

WHOLE = "all"  # what rows without splits are called: a file all.csv
RULE = "cut at random (seed 0) into 80 % train, 10 % validation, 10 % test"
VALIDATION_RULE = "validation cut off train at random (seed 0), 10 % of each class"
UNSTRATIFIED_RULE = "validation cut off train at random (seed 0), 10 %"
_SEED = 0
_FEWEST = 20  # rows of train that validation can be cut off


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
    labels = label_values(splits["train"]["label"].combine_chunks())
    if (labels == labels[0]).all():
        raise ValueError(f"{WHOLE}: must have more rows, since all those that fall to train have one label")
    return splits


def cut_off_validation(splits: Mapping[str, pa.Table], *, is_classes: bool) -> dict[str, pa.Table]:
    """The splits with a tenth of train's rows, rounded down, as validation; both keep the order of their rows.

    Of each class goes its share, rounded down, and one more row of the classes whose share is cut most, as in the
    method of largest remainders; scores, and sets of labels, are taken as one class. The rows of a class are picked by
    one number of Philox each, as in `split_rows`. Raises `ValueError` where train has too few rows.
    """
    train = splits["train"]
    if train.num_rows < _FEWEST:
        raise ValueError(
            f"validation: needs a file of its own: validation can be cut off a train of at least {_FEWEST} rows, but "
            f"it has {train.num_rows}"
        )
    labels = train["label"].to_numpy() if is_classes else np.zeros(train.num_rows, np.int64)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    takes, wanted = counts // 10, train.num_rows // 10
    order = np.argsort(-(counts % 10), kind="stable")
    takes[order[: wanted - takes.sum()]] += 1
    takes = np.minimum(takes, counts - 1)  # a class of one row stays in train
    draws = np.random.Philox(key=_SEED).random_raw(train.num_rows)
    is_validation = np.zeros(train.num_rows, bool)
    for index, take in enumerate(takes):
        rows = np.flatnonzero(classes == index)
        is_validation[rows[np.argsort(draws[rows], kind="stable")[:take]]] = True
    cut = {"train": train.filter(pa.array(~is_validation)), "validation": train.filter(pa.array(is_validation))}
    return {**cut, **{split: table for split, table in splits.items() if split != "train"}}
