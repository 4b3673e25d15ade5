"""What is known of a trial before it trains: its task, its backbone, its options and its trained parameters."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerFast

from trainables import tasks
from trainables.backbones.loading import BackboneInfo, describe_backbone, load_tokenizer, meta_encoder
from trainables.config import Scalar, TrialConfig
from trainables.data import tokenized
from trainables.data.folding import fold_task
from trainables.data.reachability import hurried
from trainables.faults import UnavailableError
from trainables.methods import parse_options, reads_word_pieces, resolve
from trainables.metrics import TaskKind
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.model import ParameterCounts, build_model, count_parameters, statistics_of


@dataclass(frozen=True, kw_only=True)
class TaskPreview:
    """A task as far as it is known here. Without its data, `fingerprint` and `train_rows` are None, `rows` is empty."""

    info: tasks.TaskInfo
    fingerprint: str | None
    train_rows: int | None
    missing: tuple[str, ...] = ()  # why its data cannot be had here
    rows_by_split: Mapping[str, int] = field(default_factory=dict)  # empty without its data
    notes: tuple[str, ...] = ()  # what was decided or left out while its data were read
    folds: int | None = None  # how many its rows are cut into; None where they keep the splits they have
    rows_by_fold: tuple[Mapping[str, int], ...] = ()  # `rows_by_split` of each fold; empty without folds or data

    def rows_of(self, fold: int | None) -> Mapping[str, int]:
        """The rows of each split that a trial sees, of its fold where there are folds; empty without the data."""
        return self.rows_by_fold[fold] if fold is not None and self.rows_by_fold else self.rows_by_split

    def training_rows_of(self, fold: int | None) -> int | None:
        """The training rows that the number of a trial's steps follows from; None where they do not tell."""
        return None if self.train_rows is None else self.rows_of(fold)["train"]


def preview_task(reference: str, folds: int | None = None) -> TaskPreview:
    """Read and check a task, or describe it where its data are out of reach; that is found out without waiting.

    `folds` is how many it is cut into where it does not say so itself. Raises `FaultsError` where there is no such
    task, its data are faulty, or only its data could describe it.
    """
    with hurried():
        try:
            task = tasks.load(reference)
        except UnavailableError as error:
            info = tasks.describe(reference)
            return TaskPreview(info=info, fingerprint=None, train_rows=None, missing=error.faults, folds=folds)
    # How many windows questions make, and so the steps, depends on the tokenizer.
    rows = None if task.info.kind == "extractive_qa" else task.splits["train"].num_rows
    by_split = {split: table.num_rows for split, table in task.splits.items()}
    number = task.folds or folds
    cut = None if number is None else fold_task(task, number)
    return TaskPreview(
        info=task.info,
        fingerprint=task.fingerprint,
        train_rows=rows,
        rows_by_split=by_split,
        notes=(*task.notes, *(cut.notes if cut else ())),
        folds=number,
        rows_by_fold=tuple(map(cut.rows_by_split, range(cut.num_folds))) if cut else (),
    )


@dataclass(frozen=True, kw_only=True)
class BackbonePreview:
    """A backbone as far as it is known here: None where not even its sizes are."""

    info: BackboneInfo | None
    missing: tuple[str, ...] = ()  # why its weights cannot be had here


def preview_backbone(name: str) -> BackbonePreview:
    """Describe a backbone, by its sizes alone where its weights are out of reach; that is found out without waiting.

    Raises `FaultsError` where there is no such backbone or it is of no family we know.
    """
    with hurried():
        try:
            return BackbonePreview(info=describe_backbone(name))
        except UnavailableError as error:
            missing = error.faults
        try:
            return BackbonePreview(info=describe_backbone(name, weights=False), missing=missing)
        except UnavailableError:
            rule = "even its sizes are therefore unknown, and with them what its trials would train"
            return BackbonePreview(info=None, missing=(f"{missing[0]}; {rule}",))


def complete_options(method: str, options: Mapping[str, Scalar], shape: EncoderShape | None) -> dict[str, Scalar]:
    """A method's options with defaults filled in and what they leave open pinned.

    Raises `FaultsError` with every fault.
    """
    parsed = parse_options(method, options, shape)
    if shape is not None:  # else faults are still to be found
        parsed = resolve(method, parsed, shape)
    return {name: getattr(parsed, name) for name in parsed.__dataclass_fields__}


# So many word pieces hold one of each text beside all that any tokenizer adds, which need not be read to know it.
_SURELY_ENOUGH = 16


def length_faults(backbone: BackboneInfo | None, method: str, task: tasks.TaskInfo, max_length: int) -> list[str]:
    """The fault of a max_length that shows nothing of a task's texts, with the smallest that would do.

    None is found where the backbone is not at hand. Raises `FaultsError` where its tokenizer cannot be loaded.
    """
    if (
        backbone is None
        or backbone.fingerprint is None
        or max_length >= _SURELY_ENOUGH
        or not reads_word_pieces(method)
    ):
        return []
    answers = task.kind == "extractive_qa"
    return tokenized.length_faults(_tokenizer(backbone), max_length, pair=task.pair, answers=answers)


@functools.lru_cache(maxsize=8)
def _tokenizer(backbone: BackboneInfo) -> PreTrainedTokenizerFast:
    return load_tokenizer(backbone)


def preview_parameters(config: TrialConfig, shape: EncoderShape, task: tasks.TaskInfo | int) -> ParameterCounts:
    """Count a trial's parameters from the tensors it would train, without memory for them.

    `task` is what it trains on, or the number of outputs of a classifier.
    """
    num_labels, kind = (task, "classification") if isinstance(task, int) else (task.num_labels, task.kind)
    options = tuple(sorted(config.method_options.items()))
    one, per_output = _count(config.method, options, shape, kind)
    more = (num_labels - 1) * per_output
    return ParameterCounts(
        trained=one.trained + more, trained_without_head=one.trained_without_head, total=one.total + more
    )


def keeps_statistics(config: TrialConfig, shape: EncoderShape, task: tasks.TaskInfo) -> bool:
    """Whether a trial has statistics of its batches beside its weights, with which none goes on from another's."""
    with torch.device("meta"):
        return bool(statistics_of(build_model(_encoder(shape), [config], 1, kind=task.kind)))


@functools.lru_cache(maxsize=4096)
def _count(
    method: str, options: tuple[tuple[str, Scalar], ...], shape: EncoderShape, kind: TaskKind
) -> tuple[ParameterCounts, int]:
    """The counts with a head of one output, and what each further one adds. A sweep asks for the same many times."""
    config = TrialConfig(task="any", backbone="any", method=method, method_options=dict(options))
    with torch.device("meta"):
        model = build_model(_encoder(shape), [config], 1, kind=kind)
    return count_parameters(model), model.head.weight.shape[1] + 1


@functools.lru_cache(maxsize=8)
def _encoder(shape: EncoderShape) -> Encoder:
    """Building a model makes a view of it and leaves it as it is."""
    return meta_encoder(shape)
