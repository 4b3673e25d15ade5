"""Labels: their names, and how many rows each class has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from trainables.data.audit.checks.texts import NULL_WORDS
from trainables.data.audit.view import View
from trainables.data.label_sets import SEPARATORS

_NO_LABELS = NULL_WORDS | {"?", "-", "--", "\\n"}
_MAJORITY = 0.8  # share of the most frequent class from which on accuracy tells little
_FEW_OF_A_CLASS = 5
_FEW_ROWS = 50
_SHIFT = 0.15  # half the summed differences of shares


def alike_labels(view: View) -> Iterator[str]:
    """Names of labels that differ in capitals, blanks, hyphens, underscores or the coding of a letter alone."""
    groups: dict[str, list[int]] = {}
    for label, name in enumerate(view.info.label_names):
        composed = unicodedata.normalize("NFKC", name.strip())
        plain = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", composed).casefold()
        groups.setdefault(plain, []).append(label)
    alike = [labels for labels in groups.values() if len(labels) > 1]
    if not alike:
        return
    rows = sum(int(view.counts["train"][labels].sum()) for labels in alike)
    shown = "; ".join(", ".join(map(view.class_name, labels)) for labels in alike[:5])
    yield (
        f"{sum(map(len, alike))} of {view.info.num_labels} labels look like others ({shown}{_more(alike)}), but are "
        f"classes of their own, with {rows:,} rows of train. Write each of them in one way"
    )


def null_words_as_labels(view: View) -> Iterator[str]:
    """Labels that some programs write where a label is missing."""
    words = [label for label, name in enumerate(view.info.label_names) if name.strip().casefold() in _NO_LABELS]
    if words:
        rows = sum(int(counts[words].sum()) for counts in view.counts.values())
        yield (
            f"{view.classes(words)} {_is_a_class(words)}, in {rows:,} rows. If the label is missing there, take these "
            f"rows out"
        )


def several_labels_in_one(view: View) -> Iterator[str]:
    """Names of classes that are names of other classes with a separator between them."""
    names = view.info.label_names if view.is_classification else ()
    for separator in SEPARATORS:
        joined = [label for label, name in enumerate(names) if separator in name]
        parts = {name: {part.strip() for part in name.split(separator)} for name in names}
        of_joined = set().union(*(parts[names[label]] for label in joined))
        if joined and all(sum(part in held for held in parts.values()) > 1 for part in of_joined):
            yield (
                f"{len(joined)} of {len(names)} classes are several others with {separator!r} between them "
                f'({view.classes(joined)}). Where texts have several labels, say "kind": "multilabel" in task.json'
            )


def many_classes(view: View) -> Iterator[str]:
    """As many classes as half of the rows: a column of ids, or of texts."""
    rows = view.task.splits["train"].num_rows
    if view.has_classes and view.info.num_labels > 20 and 2 * view.info.num_labels > rows:
        yield f"there are {view.info.num_labels:,} classes in {rows:,} rows of train. Is this the column of the labels?"


def strong_imbalance(view: View) -> Iterator[str]:
    """One class with most of the rows, where the metric is accuracy."""
    if not view.is_classification or not view.metric_is_accuracy:
        return
    split = "validation"
    share, label = _majority(view.counts[split])
    if share >= _MAJORITY:
        metric = "f1" if view.info.num_labels == 2 else "macro_f1"
        yield (
            f"a model that always answers {view.class_name(label)} has an accuracy of {share:.3f} on {split}, so "
            f'accuracy says little. Measure it otherwise, as by "metric": "{metric}" or "matthews_correlation"'
        )


def f1_of_the_frequent_class(view: View) -> Iterator[str]:
    """A metric that scores one of two classes, which is the more frequent one."""
    if not view.is_classification or view.info.num_labels != 2 or view.info.metric != "f1":
        return
    share, label = _majority(view.counts["train"])
    if label == 1 and share > 0.5 and view.info.label_names:
        names = list(view.info.label_names)
        reversed_names = ", ".join(f'"{name}"' for name in reversed(names))
        yield (
            f"f1 is that of {names[1]!r}, which {share:.0%} of train's rows are, and not that of {names[0]!r}. If "
            f'{names[0]!r} is what is to be found, say "label_names": [{reversed_names}]: the last of two is scored'
        )


def classes_without_rows(view: View) -> Iterator[str]:
    """Classes that no row of train has, or that train has and another split has not."""
    if not view.has_classes:
        return
    train = view.counts["train"]
    if absent := np.flatnonzero(train == 0).tolist():
        yield (
            f"{view.info.num_labels - np.count_nonzero(train):,} of {view.info.num_labels:,} classes never "
            f"{_occur(absent)} in train: "
            f"{view.classes(absent, 10)}. "
            f"Are label_names or num_labels right, and in the right order?"
        )
    for split, counts in view.counts.items():
        expected = train / train.sum() * counts.sum()
        absent = np.flatnonzero((train > 0) & (counts == 0)).tolist()
        # Of many rare classes, some are absent from a small split as a matter of course.
        if split != "train" and absent and (len(absent) <= 3 or expected[absent].max() >= 1):
            yield (
                f"{len(absent):,} of {view.info.num_labels:,} classes never {_occur(absent)} in {split}, though in "
                f"train: {view.classes(absent)}. Its scores say nothing of such rows"
            )


def few_rows_of_a_class(view: View) -> Iterator[str]:
    """Classes with hardly a row to learn from."""
    if not view.has_classes:
        return
    train = view.counts["train"]
    few = np.flatnonzero((train > 0) & (train < _FEW_OF_A_CLASS))
    if len(few) and view.task.splits["train"].num_rows >= _FEW_ROWS:
        fewest = few[np.argsort(train[few], kind="stable")].tolist()
        shown = ", ".join(f"{view.class_name(label)} ({train[label]})" for label in fewest[:5])
        have = "have" if len(few) > 1 else "has"
        yield (
            f"{len(few):,} of {view.info.num_labels:,} classes {have} fewer than {_FEW_OF_A_CLASS} rows in train: "
            f"{shown}{_more(fewest)}. Find more of them, or make them one class"
        )


def shares_differ(view: View) -> Iterator[str]:
    """Another mix of classes in validation or test than in train, as of files that were cut while in order."""
    if not view.is_classification:
        return
    train = view.counts["train"]
    of_train = train / train.sum()
    for split, counts in view.counts.items():
        if split == "train" or not counts.sum():
            continue
        of_split = counts / counts.sum()
        by_chance = np.sqrt(of_train * (1 - of_train) * (1 / train.sum() + 1 / counts.sum())).sum() / 2
        if (difference := np.abs(of_split - of_train).sum() / 2) > max(_SHIFT, 2 * by_chance):
            most = int(np.abs(of_split - of_train).argmax())
            yield (
                f"{split} has another mix of classes than train ({difference:.0%} of its rows would have to change "
                f"class): {view.class_name(most)} is {of_split[most]:.1%} of {split} and {of_train[most]:.1%} of "
                f"train. Were the splits drawn at random?"
            )


def few_rows(view: View) -> Iterator[str]:
    """Splits whose scores are mostly chance."""
    for split, table in view.task.splits.items():
        rows = table.num_rows
        if split != "train" and rows < _FEW_ROWS:
            yield (
                f"{split} has {rows} {'rows' if rows != 1 else 'row'}: one row more or less that is right moves its "
                f"score by {100 / rows:.0f} points"
            )


def _majority(counts: np.ndarray) -> tuple[float, int]:
    label = int(counts.argmax())
    return float(counts[label] / max(1, counts.sum())), label


def _is_a_class(labels: Sequence[int]) -> str:
    return "is taken for the name of a class" if len(labels) == 1 else "are taken for names of classes"


def _occur(labels: Sequence[int]) -> str:
    return "occurs" if len(labels) == 1 else "occur"


def _more(listed: Sequence[object], at_most: int = 5) -> str:
    return " and others" if len(listed) > at_most else ""
