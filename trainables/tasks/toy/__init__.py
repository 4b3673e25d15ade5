"""Toy tasks: generated, seeded, one per kind of task; for the first sweep on any machine and for tests.

    acceptability   one sentence, two classes: is it grammatical?       (as GLUE's CoLA)
    sentiment       one sentence, two classes: did the writer like it?  (SST-2)
    intent          one sentence, six classes: what is asked for?
    paraphrase      two sentences, two classes: do they say the same?   (MRPC)
    inference       two sentences, three classes                        (MNLI)
    similarity      two sentences, a score from 0 to 5                  (STS-B)

A share of the train labels is wrong, as in real data; validation and test labels are right. No sentence occurs in two
splits, and no row twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pyarrow as pa

from trainables.data.rows import Declared, make_task
from trainables.task import SPLITS, Task, TaskInfo
from trainables.tasks.toy import grammars

EVALUATION_ROWS = {"validation": 300, "test": 400}
WRONG_LABELS = 0.03  # share of the train labels


@dataclass(frozen=True, kw_only=True)
class _Toy:
    generate: Callable[[Random, int], tuple[str, ...]]
    train_rows: int = 1000
    label_names: tuple[str, ...] = ()  # empty for a regression
    pair: bool = False
    metric: str = "accuracy"
    levels: int = 0  # whole scores 0..levels - 1 of a regression


_TASKS = {
    "acceptability": _Toy(
        generate=grammars.acceptability,
        train_rows=1200,
        label_names=("unacceptable", "acceptable"),
        metric="matthews_correlation",
    ),
    "inference": _Toy(generate=grammars.inference, label_names=("entailment", "neutral", "contradiction"), pair=True),
    "intent": _Toy(generate=grammars.intent, train_rows=800, label_names=grammars.INTENTS),
    "paraphrase": _Toy(
        generate=grammars.paraphrase,
        label_names=("not_equivalent", "equivalent"),
        pair=True,
        metric="f1_and_accuracy",
    ),
    "sentiment": _Toy(generate=grammars.sentiment, label_names=("negative", "positive")),
    "similarity": _Toy(generate=grammars.similarity, pair=True, metric="pearson_and_spearman", levels=6),
}


def names() -> tuple[str, ...]:
    """The six tasks."""
    return tuple(_TASKS)


def num_rows(name: str) -> dict[str, int]:
    """The rows of each split of a toy task."""
    return {"train": _TASKS[name].train_rows, **EVALUATION_ROWS}


def describe(name: str) -> TaskInfo:
    """The facts of a toy task; nothing is generated."""
    toy = _TASKS[name]
    return TaskInfo(
        name=f"toy/{name}",
        kind="regression" if toy.levels else "classification",
        pair=toy.pair,
        num_labels=len(toy.label_names) or 1,
        label_names=toy.label_names,
        metric=toy.metric,
        source="generated",
    )


@functools.cache
def load(name: str) -> Task:
    """Generate a toy task; the same rows on every machine."""
    info, rng = describe(name), Random(f"adaptune toy {name}")
    declared = Declared(
        name=info.name,
        source=info.source,
        kind=info.kind,
        pair=info.pair,
        num_labels=info.num_labels,
        label_names=info.label_names or None,
        metric=info.metric,
    )
    taken: dict[str, str] = {}  # sentence -> the split it is in
    return make_task(declared, {split: _split(name, split, rng, taken) for split in SPLITS})


def _split(name: str, split: str, rng: Random, taken: dict[str, str]) -> pa.Table:
    toy = _TASKS[name]
    num_classes = toy.levels or len(toy.label_names)
    rows: dict[tuple[str, ...], int] = {}
    while len(rows) < num_rows(name)[split]:
        label = len(rows) % num_classes  # as many rows of each class
        texts = toy.generate(rng, label)
        if texts in rows or any(taken.get(text, split) != split for text in texts):
            continue
        taken.update(dict.fromkeys(texts, split))
        rows[texts] = label
    order = list(rows)
    rng.shuffle(order)
    labels: list[float] = [rows[texts] for texts in order]
    if split == "train":
        for row in rng.sample(range(len(labels)), round(WRONG_LABELS * len(labels))):
            labels[row] = (labels[row] + rng.randrange(1, num_classes)) % num_classes
    columns = {f"text_{'ab'[side]}": [texts[side] for texts in order] for side in range(1 + toy.pair)}
    label_type = pa.float64() if toy.levels else pa.int64()
    return pa.table({**columns, "label": pa.array(labels, label_type)})
