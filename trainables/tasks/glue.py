"""GLUE: the nine tasks of Wang et al. 2019 by name, from the dataset `nyu-mll/glue` at one commit.

Metrics are GLUE's own. MNLI is selected on its matched rows, and its final model is evaluated on the mismatched ones
too (`mismatched_accuracy`). Most test splits hide their labels and count as absent.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from trainables.data.hub import HubSource, load_from_hub
from trainables.data.rows import Declared
from trainables.task import SPLITS, Task, TaskInfo

DATASET = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


@dataclass(frozen=True, kw_only=True)
class _Glue:
    columns: tuple[str, ...]  # one text column, or two for a pair
    labels: tuple[str, ...]  # by index, as the dataset has them; empty for the one regression
    metric: str = "accuracy"
    halves: tuple[str, ...] = ()  # where there are several validation and test splits: the one selected on, the others


_TASKS = {
    "cola": _Glue(columns=("sentence",), labels=("unacceptable", "acceptable"), metric="matthews_correlation"),
    "mnli": _Glue(
        columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        halves=("matched", "mismatched"),
    ),
    "mrpc": _Glue(
        columns=("sentence1", "sentence2"), labels=("not_equivalent", "equivalent"), metric="f1_and_accuracy"
    ),
    "qnli": _Glue(columns=("question", "sentence"), labels=("entailment", "not_entailment")),
    "qqp": _Glue(columns=("question1", "question2"), labels=("not_duplicate", "duplicate"), metric="f1_and_accuracy"),
    "rte": _Glue(columns=("sentence1", "sentence2"), labels=("entailment", "not_entailment")),
    "sst2": _Glue(columns=("sentence",), labels=("negative", "positive")),
    "stsb": _Glue(columns=("sentence1", "sentence2"), labels=(), metric="pearson_and_spearman"),
    "wnli": _Glue(columns=("sentence1", "sentence2"), labels=("not_entailment", "entailment")),
}


def names() -> tuple[str, ...]:
    """The nine tasks."""
    return tuple(_TASKS)


def describe(name: str) -> TaskInfo:
    """The facts of a GLUE task, without its data."""
    task = _TASKS[name]
    return TaskInfo(
        name=f"glue/{name}",
        kind="classification" if task.labels else "regression",
        pair=len(task.columns) == 2,
        num_labels=len(task.labels) or 1,
        label_names=task.labels,
        metric=task.metric,
        source=str(_source(name)),
    )


@functools.lru_cache(maxsize=16)
def load(name: str) -> Task:
    """Read and check a GLUE task. Raises `UnavailableError` saying why where it cannot be reached."""
    info = describe(name)
    declared = Declared(
        name=info.name,
        source=info.source,
        kind=info.kind,
        pair=info.pair,
        num_labels=info.num_labels,
        label_names=info.label_names or None,
        metric=info.metric,
        allow_empty_text=True,
    )
    return load_from_hub(_source(name), declared)


def _source(name: str) -> HubSource:
    task = _TASKS[name]
    splits = {split: split for split in SPLITS}
    for split in ("validation", "test") if task.halves else ():
        selected, *others = task.halves
        splits |= {split: f"{split}_{selected}", **{f"{split}_{half}": f"{split}_{half}" for half in others}}
    return HubSource(
        dataset=DATASET,
        revision=REVISION,
        config=name,
        columns=dict(zip(("text_a", "text_b"), task.columns, strict=False)) | {"label": "label"},
        splits=splits,
    )
