"""A small encoder, in float32 and bf16, and rows of different lengths, to hold packs against trials alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tests.factories import trial_config
from trainables.config import Scalar, TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.methods import method_names
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.task import TaskInfo
from trainables.training.loss import class_weights
from trainables.training.model import stack_key
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

CPU = torch.device("cpu")
NUM_OUTPUTS = 3
SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    type_vocab_size=2,
    embedding_size=16,
)
SmallOptions = Callable[[str, Encoder], dict[str, Scalar]]


def make_config(method: str, options: Mapping[str, Scalar], **values: Any) -> TrialConfig:
    init_std = values.pop("init_std", None)
    own = dict(options) | ({"init_std": init_std} if "init_std" in options and init_std is not None else {})
    return trial_config(method, method_options=own, batch_size=4, **values)


PACKABLE = [method for method in method_names() if stack_key(make_config(method, {})) is not None]


def _encoder(dtype: torch.dtype = torch.float32) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(SHAPE).named_parameters()
    }
    return Encoder(SHAPE, masters).load(CPU, dtype)


def _rows() -> TokenizedSplit:
    """Rows of 3 to 11 word pieces, so that trials of a pack meet batches of different lengths."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 12, size=48)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(4, SHAPE.vocab_size, size=offsets[-1]).astype(np.int32)
    return TokenizedSplit(
        offsets=offsets,
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], np.int8),
        labels=ids[offsets[:-1] + 1].astype(np.int64) % NUM_OUTPUTS,
    )


ENCODER, ROUNDED, ROWS = _encoder(), _encoder(torch.bfloat16), _rows()


def make_pack(tokens_per_slice: int = 10_000, encoder: Encoder = ENCODER) -> Pack:
    pack = Pack(encoder, {"train": ROWS}, NUM_OUTPUTS)
    pack.tokens_per_slice = tokens_per_slice
    return pack


TASK = TaskInfo(
    name="any",
    kind="classification",
    pair=False,
    num_labels=NUM_OUTPUTS,
    label_names=(),
    metric="accuracy",
    source="any",
)


def make_running(config: TrialConfig) -> RunningTrial:
    weights = class_weights(config.class_weights, TASK, ROWS.labels)
    return RunningTrial(Job(config=config, done=lambda outcome: None), len(ROWS), class_weights=weights)
