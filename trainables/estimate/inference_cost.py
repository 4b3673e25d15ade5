"""What a trained model costs when it answers: the time of a batch, beside that of the backbone alone.

Values do not decide speed, so what is measured are fresh models: of each method once for all trials that one model
could hold stacked (`trainables.training.model.stack_key`), with a linear head of two classes, on rows of one length and
drawn word pieces. A model can answer in two forms:

- "merged": what was trained is written into the backbone's weights, which then cost what they always cost. That is how
  full fine-tuning, a linear probe or a merged LoRA are served, each alone. It is not measured again for each, so that
  no noise tells equal costs apart;
- "beside": what was trained stands beside the frozen weights, as an `AdapterBank` serves many tasks over one backbone.

Each round of a model goes with one of the backbone alone, and what counts is the median of the ratios of the two: what
else the machine does meanwhile slows both. On one thread of a CPU the clock is that of the processor, which stands
still while other programs have it; otherwise that of the wall.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from trainables.backbones.loading import Backbone, load_backbone
from trainables.config import Scalar, TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.device.hardware import device_named
from trainables.device.provenance import provenance
from trainables.faults import FaultsError
from trainables.inference.stock_model import checkpoint_tensors
from trainables.methods import uses_backbone
from trainables.methods.peft import merged_tensors
from trainables.training.evaluation import predict
from trainables.training.model import AdaptedModel, build_model, stack_key

logger = logging.getLogger(__name__)

Form = Literal["merged", "beside"]

BATCH_SIZES = (1, 8, 64)
LENGTH = 32  # word pieces of a row: a sentence
# Rounds of each batch size: at least, at most, and no more once they have taken so long together.
LEAST_ROUNDS, MOST_ROUNDS, ENOUGH_S = 5, 30, 2.0
_BACKBONE_ALONE = "linear_probe"  # the method that adds a head and nothing else


@dataclass(frozen=True, kw_only=True)
class InferenceCost:
    """What one form of some models costs at one batch size."""

    backbone: str
    method: str
    options: Mapping[str, Scalar]  # of the first of the models
    members: tuple[int, ...]  # which of the configurations that were asked for these are
    form: Form
    batch_size: int
    latency_ms: float  # of a whole batch
    times_backbone: float  # the same as a multiple of the backbone's alone

    @property
    def examples_per_second(self) -> float:
        return 1000 * self.batch_size / self.latency_ms


@dataclass(frozen=True, kw_only=True)
class InferenceCosts:
    """What was measured, on what machine, and why some configurations could not be."""

    costs: tuple[InferenceCost, ...]
    length: int
    machine: Mapping[str, str]  # as `provenance` tells it
    faults: tuple[str, ...]


def measure_inference(
    configs: Sequence[TrialConfig],
    *,
    length: int = LENGTH,
    device: str | None = None,
    num_threads: int | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    note: Callable[[str], None] = lambda line: None,
) -> InferenceCosts:
    """Measure what models of these configurations cost, those of one cost together.

    Args:
        configs: their seeds and hyperparameters but for the method's options say nothing here.
        length: word pieces of each row, at most the backbone's positions.
        device: "cpu", "cuda", "cuda:1"; the first GPU by default.
        num_threads: of torch on a CPU; as many as it takes by itself by default.
        batch_sizes: texts that are answered at once.
        note: hears what goes on, a line for each kind of model.

    Raises `FaultsError` where a backbone cannot be loaded, or the length is not one of its texts.
    """
    threads_before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        place = device_named(device)
        costs: list[InferenceCost] = []
        faults: list[str] = []
        for name in dict.fromkeys(config.backbone for config in configs):
            kinds = _kinds(configs, name, faults)
            if not kinds:
                continue
            backbone = load_backbone(name, device=place, compute_dtype=torch.float32)
            if not 3 <= length <= (most := backbone.info.shape.max_length):
                raise FaultsError("measure", [f"length: must be in [3, {most}], the backbone's, but got {length}"])
            costs += _of_backbone(backbone, configs, kinds, length, batch_sizes, faults, note)
        machine = provenance(place, torch.float32)
    finally:
        torch.set_num_threads(threads_before)
    return InferenceCosts(costs=tuple(costs), length=length, machine=machine, faults=tuple(faults))


def _kinds(configs: Sequence[TrialConfig], backbone: str, faults: list[str]) -> list[list[int]]:
    """Which configurations over a backbone cost the same."""
    found: dict[Hashable, list[int]] = {}
    for place, config in enumerate(configs):
        if config.backbone != backbone:
            continue
        if not uses_backbone(config.method):
            fault = f"{config.method}: reads no backbone, and is not measured"
            faults += [fault] if fault not in faults else []
            continue
        options = json.dumps(dict(config.method_options), sort_keys=True)
        found.setdefault((config.method, stack_key(config) or options), []).append(place)
    return list(found.values())


def _of_backbone(
    backbone: Backbone,
    configs: Sequence[TrialConfig],
    kinds: Sequence[Sequence[int]],
    length: int,
    batch_sizes: Sequence[int],
    faults: list[str],
    note: Callable[[str], None],
) -> list[InferenceCost]:
    splits = {size: _rows(size, length, backbone.info.shape.vocab_size) for size in batch_sizes}
    plain = build_model(backbone.encoder, [TrialConfig(
        task="any", backbone=backbone.info.name, method=_BACKBONE_ALONE, method_options={}, seed=0
    )], 2)  # fmt: skip
    alone: dict[int, list[float]] = {size: [_seconds(plain, splits[size])] for size in batch_sizes}
    found: list[tuple[Sequence[int], Form, int, float]] = []
    for members in kinds:
        config = configs[members[0]]
        options = "".join(f", {name} {value}" for name, value in config.method_options.items())
        note(f"{config.method}{options}, over {config.backbone}")
        try:
            model = build_model(backbone.encoder, [config], 2)
            merges = _merges(config, model)
            is_private = stack_key(config) is None  # its weights stand in the backbone's place, not beside it
            for size in batch_sizes:
                if merges:
                    found.append((members, "merged", size, 1.0))
                if not (merges and is_private):
                    ratio = _times_backbone(model, plain, splits[size], alone[size])
                    found.append((members, "beside", size, ratio))
        except FaultsError as error:
            faults += [f"{config.method}: {fault}" for fault in error.faults]
    once_ms = {size: 1000 * statistics.median(seconds) for size, seconds in alone.items()}
    return [
        InferenceCost(
            backbone=configs[members[0]].backbone,
            method=configs[members[0]].method,
            options=configs[members[0]].method_options,
            members=tuple(members),
            form=form,
            batch_size=size,
            latency_ms=ratio * once_ms[size],
            times_backbone=ratio,
        )
        for members, form, size, ratio in found
    ]


def _merges(config: TrialConfig, model: AdaptedModel) -> bool:
    """Whether a checkpoint of the backbone can hold what the model has trained."""
    try:
        _ = merged_tensors(model.encoder) if config.method == "peft" else checkpoint_tensors(model)
    except ValueError as reason:
        logger.debug("%s is served beside its backbone: %s", config.method, reason)
        return False
    return True


def _times_backbone(model: AdaptedModel, plain: AdaptedModel, split: TokenizedSplit, alone: list[float]) -> float:
    """How many times as long a model takes as the backbone alone, whose seconds are added to those known."""
    _seconds(model, split)  # the first prepares memory and kernels
    ratios: list[float] = []
    began = time.perf_counter()
    while len(ratios) < LEAST_ROUNDS or (len(ratios) < MOST_ROUNDS and time.perf_counter() - began < ENOUGH_S):
        # Each goes first as often as the other.
        first, second = (model, plain) if len(ratios) % 2 else (plain, model)
        seconds = {first: _seconds(first, split), second: _seconds(second, split)}
        alone.append(seconds[plain])
        ratios.append(seconds[model] / seconds[plain])
    return statistics.median(ratios)


def _seconds(model: AdaptedModel, split: TokenizedSplit) -> float:
    """How long a model takes to answer a batch. Its answers are read back, so a GPU has done its work."""
    is_alone = model.head.weight.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if is_alone else time.perf_counter
    began = clock()
    predict(model, split)
    return clock() - began


def _rows(size: int, length: int, vocab_size: int) -> TokenizedSplit:
    """Rows of one length, of drawn word pieces."""
    ids = np.random.default_rng(size).integers(0, vocab_size, size * length, dtype=np.int32)
    return TokenizedSplit(
        offsets=np.arange(0, (size + 1) * length, length, dtype=np.int64),
        input_ids=ids,
        token_type_ids=np.zeros(size * length, dtype=np.int8),
        labels=np.zeros(size, dtype=np.int64),
    )
