"""A pack made for measuring: the one file here that knows how the engine's step is called."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.clock import Deadline
from benchmarks.gpu.sizes import Sizes
from benchmarks.packing import encoder_of_shape, random_split
from trainables.backbones import shape_of
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.device.dtype import compute_dtype
from trainables.device.memory import PeakMemory, release_unused, used_bytes
from trainables.engine.pack_size import MemoryModel, piece_bytes
from trainables.estimate.flops import training_flops
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.captured_step import STEPS_BEFORE
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

METHOD = "adapter"
WARM_UP_STEPS, LEAST_STEPS = STEPS_BEFORE + 2, 3  # after which a step has been captured and replayed
# Of trials on random rows. A trial knows its order of rows before its first step, so many steps take a while to plan.
MANY_STEPS, FEW_STEPS, STEPS_PER_EPOCH = 1600, 64, 16
# Share of the rate of products that a step is expected to reach at least, when asking whether there is time for it.
PESSIMISTIC_SHARE = 0.05
# Seconds a step takes at least, whatever its size, when asking the same: kernels have to be launched one by one.
LEAST_STEP_S = 0.05


def encoder(configuration: Mapping[str, Any], device: torch.device, dtype: torch.dtype | None = None) -> Encoder:
    """An encoder with random weights; None: the dtype in which the device would train."""
    return encoder_of_shape(shape_of(configuration), device, dtype or compute_dtype("auto", device))


def trial_config(sizes: Sizes, seed: int, **chosen: Any) -> TrialConfig:
    """One trial of a pack."""
    options = {"adapter_size": sizes.adapter_size, "pooling": "pooler"}  # as the opponents' head reads it
    given = {"task": "synthetic", "backbone": "synthetic", "method": METHOD, "method_options": options}
    return TrialConfig(**{**given, "batch_size": sizes.batch_size, "seed": seed, **chosen})


def lora_config(sizes: Sizes, seed: int, **chosen: Any) -> TrialConfig:
    """One trial of a pack that trains what the opponents' LoRA does."""
    options = {"rank": sizes.lora_rank, "alpha": sizes.lora_alpha, "pooling": "pooler"}
    return trial_config(sizes, seed, method="lora", method_options=options, **chosen)


def ragged_split(longest: int, vocab_size: int, rows: int) -> TokenizedSplit:
    """Rows of lengths from 4 to `longest`, with random word pieces and labels."""
    rng = np.random.Generator(np.random.Philox(0))
    offsets = np.concatenate([[0], np.cumsum(rng.integers(4, longest, rows, endpoint=True))])
    return TokenizedSplit(
        offsets=offsets,
        input_ids=rng.integers(5, vocab_size, offsets[-1], dtype=np.int32),
        token_type_ids=np.zeros(offsets[-1], dtype=np.int8),
        labels=rng.integers(0, 2, rows),
    )


class MeasuredPack:
    """Trials in one pack, its steps taken and timed from outside.

    Args:
        encoder: the frozen backbone, already on its device.
        split: the rows to train on.
        configs: the trials.
        num_labels: of the rows.
        graphs: whether a GPU's steps may be captured.
    """

    def __init__(
        self,
        encoder: Encoder,
        split: TokenizedSplit,
        configs: Sequence[TrialConfig],
        num_labels: int = 2,
        *,
        graphs: bool = True,
    ) -> None:
        self.device = encoder.device
        gc.collect()  # a pack before this one would be freed in the middle of it
        release_unused()
        self._used_before = used_bytes(self.device)
        self._peak = PeakMemory(self.device)
        self._pack = Pack(encoder, {"train": split}, num_outputs=num_labels)
        if not graphs:
            self._pack.captured = None
        jobs = [Job(config=config, done=lambda outcome: None) for config in configs]
        began = time.perf_counter()
        self._pack.join([RunningTrial(job, len(split)) for job in jobs])
        self.wait()
        self.join_s = time.perf_counter() - began
        self._steps_left = min(len(trial.batches) for trial in self._pack.trials)

    @property
    def bytes_per_trial(self) -> int:
        """Of what one trial trains: weights, moments, gradients."""
        return self._pack.weights.bytes_per_trial

    @property
    def tokens_per_slice(self) -> int:
        return self._pack.tokens_per_slice

    @property
    def has_graphs(self) -> bool:
        """Whether its steps are captured, or may yet be."""
        return self._pack.has_graphs

    def step(self) -> None:
        self._pack.step()
        self._steps_left -= 1

    def wait(self) -> None:
        """Until the device has done all it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def take_losses(self) -> np.ndarray:
        """Each trial's training loss since the last call, summed over steps: float64 (K,)."""
        sums = self._pack.weights.loss_sums
        losses = sums.double().cpu().numpy()
        sums.zero_()
        return losses

    def weights(self) -> np.ndarray:
        """What the trials train (K, P), float32."""
        return self._pack.weights.rows.detach().cpu().numpy().copy()

    def time_steps(self, seconds: float, deadline: Deadline) -> list[float]:
        """Seconds of each step after the first few, until so many seconds, the deadline or the trials' last step."""
        times: list[float] = []
        while len(times) < WARM_UP_STEPS + LEAST_STEPS or sum(times[WARM_UP_STEPS:]) < seconds:
            if deadline.has_passed() or not self._steps_left:
                break
            began = time.perf_counter()
            self.step()
            self.wait()
            times.append(time.perf_counter() - began)
        return times[WARM_UP_STEPS:]

    def peak_bytes(self) -> int | None:
        """The most memory since it was made that is not the backbone's; None where the system cannot tell."""
        peak = self._peak.read()
        return None if peak is None or self._used_before is None else peak - self._used_before


def synthetic_pack(
    encoder: Encoder, sizes: Sizes, *, length: int, num_trials: int, steps: int = MANY_STEPS, graphs: bool = True
) -> MeasuredPack:
    """Trials of so many steps that differ in their seeds, on rows of one length."""
    split = random_split(length, encoder.shape.vocab_size, STEPS_PER_EPOCH * sizes.batch_size)
    epochs = -(-steps // STEPS_PER_EPOCH)
    configs = [trial_config(sizes, seed, num_epochs=epochs) for seed in range(num_trials)]
    return MeasuredPack(encoder, split, configs, graphs=graphs)


def example_flops(shape: EncoderShape, sizes: Sizes, length: int) -> float:
    """Useful operations of training on one row of this length, forwards and backwards."""
    return training_flops(trial_config(sizes, 0), shape, length) * length


def expected_seconds(shape: EncoderShape, sizes: Sizes, *, length: int, num_trials: int, rate: float) -> float:
    """What a point of timed steps may take, said before it is begun; rather too much than too little."""
    flops = num_trials * sizes.batch_size * example_flops(shape, sizes, length)
    step_s = max(LEAST_STEP_S, flops / (PESSIMISTIC_SHARE * rate))
    return (WARM_UP_STEPS + LEAST_STEPS) * step_s + sizes.step_seconds


def memory_model(
    shape: EncoderShape,
    sizes: Sizes,
    *,
    length: int,
    dtype: torch.dtype,
    bytes_per_trial: int,
    tokens_per_slice: int,
) -> MemoryModel:
    """The engine's own arithmetic for a pack of these trials."""
    return MemoryModel(
        bytes_per_trial=bytes_per_trial,
        bytes_per_token=piece_bytes(METHOD, shape, length, dtype),
        tokens_per_trial=length * sizes.batch_size,
        tokens_per_slice=tokens_per_slice,
    )


def median(times: Sequence[float]) -> float:
    return statistics.median(times)
