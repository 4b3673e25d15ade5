"""What is known of a trial before it trains: its task, its backbone, its options and its trained parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from trainables import tasks
from trainables.backbone import meta_encoder
from trainables.config import Scalar, TrialConfig
from trainables.encoder import EncoderShape
from trainables.faults import UnavailableError
from trainables.methods import get_method, parse_options
from trainables.model import ParameterCounts, build_model, count_parameters


@dataclass(frozen=True, kw_only=True)
class TaskPreview:
    """A task as far as it is known here. Without its data, `fingerprint` and `train_rows` are None."""

    info: tasks.TaskInfo
    fingerprint: str | None
    train_rows: int | None
    missing: tuple[str, ...] = ()  # why its data cannot be had here


def preview_task(reference: str) -> TaskPreview:
    """Read and check a task. Raises `FaultsError` where there is no such task or its data are faulty."""
    try:
        task = tasks.load(reference)
    except UnavailableError as error:
        return TaskPreview(
            info=tasks.describe(reference), fingerprint=None, train_rows=None, missing=tuple(error.faults)
        )
    return TaskPreview(info=task.info, fingerprint=task.fingerprint, train_rows=task.splits["train"].num_rows)


def complete_options(method: str, options: Mapping[str, Scalar], shape: EncoderShape | None) -> dict[str, Scalar]:
    """A method's options with defaults filled in. Raises `FaultsError` with every fault."""
    parsed = parse_options(method, options, shape)
    return {name: getattr(parsed, name) for name in parsed.__dataclass_fields__}


def preview_parameters(config: TrialConfig, shape: EncoderShape, num_labels: int) -> ParameterCounts:
    """Count a trial's parameters from the tensors it would train, without memory for them."""
    with torch.device("meta"):
        return count_parameters(build_model(meta_encoder(shape), [config], num_labels))


def parameter_formula(config: TrialConfig, shape: EncoderShape) -> int:
    """The method's closed formula for the trained parameters, head left out."""
    return get_method(config.method).trained_params(shape, parse_options(config.method, config.method_options))
