"""What a trial costs before it is run: arithmetic from the tensors it trains, time from this device's own rate."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
import torch.nn.functional as F

from trainables import tasks
from trainables.backbones.loading import meta_encoder
from trainables.config import Scalar, TrialConfig
from trainables.data.folding import fold_of
from trainables.device.dtype import compute_dtype
from trainables.estimate.throughput import DeviceRate, TrialWork
from trainables.methods import is_fitted, uses_backbone
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.kernels.layernorm import residual_layernorm
from trainables.training.model import build_model, count_parameters
from trainables.training.running_trial import num_steps, rows_a_step

# Word pieces a word of running text is cut into, on average, by the vocabularies of the BERT family.
PIECES_PER_WORD = 1.35
# What an activation costs beside products on its way through a layer, in normalisations of one: attention, dropout,
# activations, residuals and their gradients. The same for a trained number that the optimizer moves.
NORMALISATIONS_A_NUMBER, NORMALISATIONS_A_TRAINED_NUMBER = 10.0, 0.5
# How often a fit reads all rows, the strengths of its penalty that are tried included: 251 times on a task of 2 classes
# and 446 times on one of 6. In float64 each takes twice its time.
PASSES_OF_A_FIT = 800


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """How much there is to read: rows a split and the mean length of a row in word pieces."""

    train_rows: int
    evaluation_rows: int  # of one evaluation on validation
    test_rows: int  # and those of further splits, which are read once too
    mean_length: float
    longest: int = 128  # of a row in word pieces
    length_std: float = 0.0  # of the rows' lengths, in word pieces


@lru_cache(maxsize=256)
def measure_task(reference: str, max_length: int, folds: int | None = None, fold: int | None = None) -> TaskSize:
    """The size of a task whose data are at hand, its lengths estimated from the words of its training rows.

    Of a task that is cut into folds, that of one of them.
    """
    task = tasks.load(reference)
    splits = (task if folds is None or fold is None else fold_of(task, folds, fold)).splits
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
        longest=math.ceil(max(lengths)),
        length_std=statistics.pstdev(lengths),
    )


def trial_work(config: TrialConfig, shape: EncoderShape, size: TaskSize) -> TrialWork:
    """What training a trial on a task of this size asks of an engine, evaluation included.

    A product costs 2 operations a weight and word piece forwards, 2 backwards where a tensor below it is trained,
    and 2 more where the weight itself is.
    """
    options = tuple(sorted(config.method_options.items()))
    costs = _piece_costs(config.method, options, shape, size.mean_length, config.dropout == 0)
    pieces = size.mean_length
    once_rows = size.evaluation_rows + size.test_rows + (size.train_rows if costs.is_kept_in_training else 0)
    rows = config.task if config.fold is None else f"{config.task} fold {config.fold}"
    step_pieces = rows_a_step(config, size.train_rows) * pieces * (PASSES_OF_A_FIT if is_fitted(config.method) else 1)
    return TrialWork(
        num_steps=num_steps(config, size.train_rows),
        num_epochs=config.num_epochs,
        step_flops=step_pieces * costs.training,
        step_numbers=step_pieces * costs.training_numbers + costs.optimizer_numbers,
        evaluation_rows=size.evaluation_rows,
        evaluation_flops=size.evaluation_rows * pieces * costs.evaluation,
        evaluation_numbers=size.evaluation_rows * pieces * costs.evaluation_numbers,
        test_rows=size.test_rows,
        test_flops=size.test_rows * pieces * costs.evaluation,
        test_numbers=size.test_rows * pieces * costs.evaluation_numbers,
        once_flops=once_rows * pieces * costs.kept,
        once_numbers=once_rows * pieces * costs.kept_numbers,
        once_key=f"{rows} {config.max_length} {config.precision} {costs.kept:.0f}" if costs.kept else None,
    )


def training_flops(config: TrialConfig, shape: EncoderShape, length: float) -> float:
    """Floating-point operations of training on one word piece of a sequence of this length, forwards and backwards."""
    options = tuple(sorted(config.method_options.items()))
    return _piece_costs(config.method, options, shape, length, config.dropout == 0).training


@dataclass(frozen=True, kw_only=True)
class _PieceCosts:
    """A word piece's operations, and the activations it passes through, once for each layer and way.

    In training, in evaluation, and once where the result is kept for every trial.
    """

    training: float
    evaluation: float
    kept: float = 0.0
    is_kept_in_training: bool = False  # and not in evaluation alone
    training_numbers: float = 0.0
    evaluation_numbers: float = 0.0
    kept_numbers: float = 0.0
    optimizer_numbers: float = 0.0  # a step, whatever its word pieces


@lru_cache(maxsize=4096)
def _piece_costs(
    method: str, options: tuple[tuple[str, Scalar], ...], shape: EncoderShape, length: float, is_undropped: bool
) -> _PieceCosts:
    """`is_undropped`: training drops nothing out, so that what lies below the trained layers can be kept."""
    config = TrialConfig(task="any", backbone="any", method=method, method_options=dict(options))
    with torch.device("meta"):
        model = build_model(meta_encoder(shape), [config], 2)
    encoder, trained_params = model.encoder, count_parameters(model).trained
    moved = trained_params * NORMALISATIONS_A_TRAINED_NUMBER / NORMALISATIONS_A_NUMBER
    if not uses_backbone(method):  # a row is read at once, by what is trained alone
        each_row = trained_params / length
        return _PieceCosts(training=6 * each_row, evaluation=2 * each_row, optimizer_numbers=moved)
    width, num_layers = float(shape.hidden_size), shape.num_layers
    if model.has_features:  # what a frozen encoder gives is computed once a task
        forward = sum(each[0] for each in _flops_of_layers(encoder, shape, length))
        each_row = trained_params / length
        return _PieceCosts(
            training=6 * each_row,
            evaluation=2 * each_row,
            kept=forward,
            is_kept_in_training=True,
            kept_numbers=width * num_layers,
            optimizer_numbers=moved,
        )
    if encoder.body is not None:  # the backbone in another's hands, with trained tensors all along it
        with torch.device("meta"):
            encoder = meta_encoder(shape)
        forward = sum(each[0] for each in _flops_of_layers(encoder, shape, length))
        return _PieceCosts(
            training=2 * forward + 6 * trained_params,
            evaluation=forward + 2 * trained_params,
            training_numbers=3 * width * num_layers,
            evaluation_numbers=width * num_layers,
            optimizer_numbers=moved,
        )
    layers = _flops_of_layers(encoder, shape, length)
    forward, backward = (sum(each) for each in zip(*layers, strict=True))
    kept = sum(each[0] for each in layers[: encoder.num_frozen_layers])
    num_kept, num_reached = encoder.num_frozen_layers, sum(each[1] > 0 for each in layers)
    return _PieceCosts(
        training=forward + backward - (kept if is_undropped else 0),
        evaluation=forward - kept,
        kept=kept,
        is_kept_in_training=is_undropped,
        # What comes back through a layer takes twice as long as what goes up.
        training_numbers=width * (num_layers - (num_kept if is_undropped else 0) + 2 * num_reached),
        evaluation_numbers=width * (num_layers - num_kept),
        kept_numbers=width * num_kept,
        optimizer_numbers=moved,
    )


def _flops_of_layers(encoder: Encoder, shape: EncoderShape, length: float) -> list[tuple[float, float]]:
    """Forwards and backwards of each layer, the bottom one first, of one word piece."""
    if shape.library is not None:
        return [_flops_of_library(encoder, shape, length)]
    costs = []
    reads_first = encoder.pooling in ("first", "pooler")
    reached = any(p.requires_grad for p in encoder.embeddings.parameters())
    for index, layer in enumerate(encoder.layers):
        # Where a head reads the first word piece alone, the last layer computes of the others only keys and values.
        others = 1 / length if reads_first and index == shape.num_layers - 1 else 1.0
        frozen = trained = 0.0
        for name, parameter in layer.named_parameters():
            used = parameter.numel() * ((2 + others) / 3 if name.startswith("attention.qkv") else others)
            frozen, trained = (frozen, trained + used) if parameter.requires_grad else (frozen + used, trained)
        attention = 4 * _seen(shape, index, length) * shape.hidden_size * others
        forward = 2 * (frozen + trained) + attention
        reached = reached or trained > 0
        # Both factors of an attention product have gradients, so it costs twice its forward pass.
        costs.append((forward, forward + 2 * trained + attention if reached else 0.0))
    return costs


def _seen(shape: EncoderShape, layer: int, length: float) -> float:
    """How many word pieces of a sequence each of them attends to in a layer, on average."""
    window = shape.windows[layer] if shape.windows else 0
    if not 0 < window < length - 1:
        return length
    to_one_side = window - window * (window + 1) / (2 * length)  # at the ends there is less to see
    return 1 + 2 * to_one_side


def _flops_of_library(encoder: Encoder, shape: EncoderShape, length: float) -> tuple[float, float]:
    """The same of a model in transformers' own classes as a whole."""
    attention = 4 * length * shape.hidden_size * shape.num_layers
    weights = shape.layers_params()
    forward = 2 * weights + attention
    is_trained = any(parameter.requires_grad for parameter in encoder.parameters())
    return forward, forward + 2 * weights + attention if is_trained else 0.0


@cache
def measure_rate(precision: str = "auto", *, num_threads: int | None = None) -> float:
    """Operations a second of this device's matrix products, in the dtype a trial of that precision computes in.

    Measured once a process, and again after `measure_rate.cache_clear()`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _on_threads(num_threads):
        dtype = compute_dtype(precision, device)
        rows, width = (512, 768) if device.type == "cpu" else (8192, 4096)
        hidden = torch.randn(rows, width, device=device).to(dtype)
        weight = torch.randn(4 * width, width, device=device).to(dtype)
        return 2 * rows * width * 4 * width / _fastest(lambda: F.linear(hidden, weight), device)


@cache
def measure_device(precision: str = "auto", *, num_threads: int | None = None) -> DeviceRate:
    """What this device does in a second for a trial of that precision: its products, and everything beside them.

    Measured once a process, and again after `measure_device.cache_clear()`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    products = measure_rate(precision, num_threads=num_threads)
    with _on_threads(num_threads):
        rows, width = (512, 384) if device.type == "cpu" else (65_536, 768)
        hidden = torch.randn(rows, width, device=device).to(compute_dtype(precision, device))
        weight, bias = torch.ones(width, device=device), torch.zeros(width, device=device)
        seconds = _fastest(lambda: residual_layernorm(hidden, hidden, weight, bias, 1e-5), device)
        return DeviceRate(products=products, numbers=rows * width / (seconds * NORMALISATIONS_A_NUMBER))


@contextmanager
def _on_threads(number: int | None) -> Iterator[None]:
    """Compute on so many threads, or as before where None."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fastest(call: Callable[[], object], device: torch.device, *, calls: int = 5, times: int = 8) -> float:
    """Seconds of a call, the best of a few averages."""
    best = float("inf")
    for _ in range(times):
        _wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            call()
        _wait(device)
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
