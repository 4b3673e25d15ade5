"""What a trial costs before it is run: arithmetic from the tensors it trains, time from this device's own rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from trainables import tasks
from trainables.backbone import meta_encoder
from trainables.config import TrialConfig
from trainables.data import num_steps
from trainables.device import compute_dtype
from trainables.encoder import Encoder
from trainables.methods import uses_backbone
from trainables.model import build_model, count_parameters
from trainables.shape import EncoderShape

# Word pieces a word of running text is cut into, on average, by the vocabularies of the BERT family.
PIECES_PER_WORD = 1.35
# Share of the device's own rate of matrix products that a training step reaches; the rest is everything else.
EFFICIENCY = 0.4
# Building the model and taking up a task that is already tokenised.
STARTUP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """How much there is to read: rows a split and the mean length of a row in word pieces."""

    train_rows: int
    evaluation_rows: int  # of one evaluation on validation
    test_rows: int  # and those of further splits, which are read once too
    mean_length: float


@lru_cache(maxsize=256)
def measure_task(reference: str, max_length: int) -> TaskSize:
    """The size of a task whose data are at hand, its lengths estimated from the words of its training rows."""
    splits = tasks.load(reference).splits
    rows = splits["train"].slice(0, 2000)
    texts = [column for column in ("text_a", "text_b") if column in rows.column_names]
    lengths = [
        min(max_length, 2 + sum(len(text.split()) * PIECES_PER_WORD + 1 for text in row.values()))
        for row in rows.select(texts).to_pylist()
    ]
    return TaskSize(
        train_rows=splits["train"].num_rows,
        evaluation_rows=splits["validation"].num_rows,
        test_rows=sum(table.num_rows for name, table in splits.items() if name not in ("train", "validation")),
        mean_length=sum(lengths) / len(lengths),
    )


def trial_flops(config: TrialConfig, shape: EncoderShape, size: TaskSize) -> float:
    """Floating-point operations of one trial, evaluation included.

    A product costs 2 operations a weight and word piece forwards, 2 backwards where a tensor below it is trained,
    and 2 more where the weight itself is.
    """
    forward, backward = _flops_per_piece(config, shape, size.mean_length)
    trained = num_steps(size.train_rows, batch_size=config.batch_size, num_epochs=config.num_epochs) * config.batch_size
    evaluated = size.evaluation_rows * config.num_epochs + size.test_rows
    return size.mean_length * (trained * (forward + backward) + evaluated * forward)


def training_flops(config: TrialConfig, shape: EncoderShape, length: float) -> float:
    """Floating-point operations of training on one word piece of a sequence of this length, forwards and backwards."""
    return sum(_flops_per_piece(config, shape, length))


def _flops_per_piece(config: TrialConfig, shape: EncoderShape, length: float) -> tuple[float, float]:
    with torch.device("meta"):
        model = build_model(meta_encoder(shape), [config], 2)
    encoder, trained_params = model.encoder, count_parameters(model).trained
    if model.has_features or not uses_backbone(config.method):
        # A row is read at once, by what is trained alone; what a frozen encoder gives is computed once a task.
        return 2 * trained_params / length, 4 * trained_params / length
    if encoder.body is not None:  # the backbone in another's hands, with trained tensors all along it
        with torch.device("meta"):
            encoder = meta_encoder(shape)
        forward, _ = _flops_of_layers(encoder, shape, length)
        return forward + 2 * trained_params, forward + 4 * trained_params
    return _flops_of_layers(encoder, shape, length)


def _flops_of_layers(encoder: Encoder, shape: EncoderShape, length: float) -> tuple[float, float]:
    forward = backward = 0.0
    reached = any(p.requires_grad for p in encoder.embeddings.parameters())
    for index, layer in enumerate(encoder.layers):
        # Of the last layer only keys and values are computed of every word piece; the rest is the first one's alone.
        others = 1 / length if index == shape.num_layers - 1 else 1.0
        frozen = trained = 0.0
        for name, parameter in layer.named_parameters():
            used = parameter.numel() * ((2 + others) / 3 if name.startswith("attention.qkv") else others)
            frozen, trained = (frozen, trained + used) if parameter.requires_grad else (frozen + used, trained)
        attention = 4 * length * shape.hidden_size * others
        cost = 2 * (frozen + trained) + attention
        forward += cost
        reached = reached or trained > 0
        # Both factors of an attention product have gradients, so it costs twice its forward pass.
        backward += cost + 2 * trained + attention if reached else 0.0
    return forward, backward


def measure_rate(precision: str = "auto", *, num_threads: int | None = None) -> float:
    """Operations a second of this device's matrix products, in the dtype a trial of that precision computes in."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        dtype = compute_dtype(precision, device)
        rows, width = (512, 768) if device.type == "cpu" else (8192, 4096)
        hidden = torch.randn(rows, width, device=device).to(dtype)
        weight = torch.randn(4 * width, width, device=device).to(dtype)
        best = float("inf")
        for _ in range(8):
            _wait(device)
            started = time.perf_counter()
            for _ in range(5):
                F.linear(hidden, weight)
            _wait(device)
            best = min(best, time.perf_counter() - started)
        return 5 * 2 * rows * width * 4 * width / best
    finally:
        torch.set_num_threads(threads)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
