"""Rows that stand more than once: in two splits, in one, or with two labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from trainables.data.audit.view import View

_REPEATED = 0.01  # share of a split's rows that repeat others


def rows_in_two_splits(view: View) -> Iterator[str]:
    """Texts of validation or test that stand in train too, or in each other."""
    for split, places in _elsewhere(view.exact).items():
        either = np.logical_or.reduce(list(places.values()))
        yield (
            f"{_of_rows(either, split)} stand in other splits too ({_counted(places)}), such as "
            f"{_example(view, split, either)}: the score of {split} is better than it would be on new rows. Take them "
            f"out of one of the two"
        )


def near_duplicates(view: View) -> Iterator[str]:
    """The same but for capitals, blanks and punctuation."""
    exact = _elsewhere(view.exact)
    for split, places in _elsewhere(view.plain).items():
        near = {
            other: mask & ~exact[split][other] if other in exact.get(split, {}) else mask
            for other, mask in places.items()
        }
        near = {other: mask for other, mask in near.items() if mask.any()}
        if near:
            either = np.logical_or.reduce(list(near.values()))
            yield (
                f"{_of_rows(either, split)} stand in other splits too ({_counted(near)}) but for capitals, blanks or "
                f"punctuation, such as {_example(view, split, either)}"
            )


def conflicting_labels(view: View) -> Iterator[str]:
    """Texts that stand with several labels."""
    if not view.is_classification:
        return
    texts = np.concatenate(list(view.exact.values()))
    labels = np.concatenate([table["label"].to_numpy() for table in view.splits.values()])
    several = np.unique(texts[_differing(texts, labels)])
    if not len(several):
        return
    first = np.flatnonzero(texts == several[0])
    named = view.classes(np.unique(labels[first]).tolist())
    starts = np.cumsum([0, *(table.num_rows for table in view.splits.values())])
    place = int(np.searchsorted(starts, first[0], side="right")) - 1
    text = view.text(list(view.splits)[place], int(first[0] - starts[place]))
    rows = int(np.isin(texts, several).sum())
    yield (
        f"{len(several):,} text{'s' * (len(several) > 1)} stand{'s' * (len(several) == 1)} with several labels, in "
        f"{rows:,} rows, such as {text} with {named}. No model can be right about all of them"
    )


def repeated_rows(view: View) -> Iterator[str]:
    """Texts that stand several times in one split."""
    found = {}
    for split, numbers in view.exact.items():
        _, firsts = np.unique(numbers, return_index=True)
        again = np.ones(len(numbers), bool)
        again[firsts] = False
        if again.sum() > _REPEATED * len(numbers):
            found[split] = again
    if found:
        split, again = next(iter(found.items()))
        listed = " and ".join(_of_rows(mask, name) for name, mask in found.items())
        yield f"{listed} repeat a text of the same split, such as {_example(view, split, again)}"


def _elsewhere(numbered: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Which rows of a split stand in each of the splits before it, where any do: bool (N,) by both splits."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for first, second in combinations(numbered, 2):
        both = np.isin(numbered[second], numbered[first])
        if both.any():
            found.setdefault(second, {})[first] = both
    return found


def _counted(places: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{split} {mask.sum():,}" for split, mask in places.items())


def _differing(texts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rows (N,) have a text whose label differs from that of the row before it, in the order of texts."""
    order = np.lexsort((labels, texts))
    differs = np.zeros(len(texts), bool)
    same_text = texts[order][1:] == texts[order][:-1]
    differs[order[1:]] = same_text & (labels[order][1:] != labels[order][:-1])
    return differs


def _of_rows(mask: np.ndarray, split: str) -> str:
    return f"{mask.sum():,} of {len(mask):,} rows of {split}"


def _example(view: View, split: str, mask: np.ndarray) -> str:
    return view.text(split, int(np.flatnonzero(mask)[0]))
