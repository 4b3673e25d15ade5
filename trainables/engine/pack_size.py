"""How many trials an engine packs: as many as memory holds, and no more than make it faster.

Memory comes from arithmetic on the encoder's shape, corrected by the peak that was measured; speed is measured alone.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import torch

from trainables.methods import uses_backbone
from trainables.nn.encoder_shape import EncoderShape

MAX_TRIALS = 32
# Steps at one size before it is judged.
STEPS_PER_JUDGEMENT = 16
# A pack twice as large has to take this much less time an example, or it only takes memory.
WORTHWHILE = 0.97
# Share of the free memory that is planned with; the rest is for what the arithmetic leaves out, and on a CPU for what
# an engine keeps of frozen layers.
SAFETY = 0.8
# What a method without a backbone keeps of a piece of text: some vectors and filter responses of a few hundred numbers.
BYTES_WITHOUT_BACKBONE = 8192


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Bytes a pack needs beyond the backbone.

    Args:
        bytes_per_trial: weights, gradients and moments of one trial.
        bytes_per_token: activations kept for the backward pass, a word piece.
        tokens_per_trial: word pieces of a trial's largest batch.
        tokens_per_slice: how many word pieces pass through the encoder together.
        has_graphs: whether steps are captured. Graphs keep memory of their own, as much as a slice's activations take,
            and a step that is launched kernel by kernel beside them needs as much again.
    """

    bytes_per_trial: int
    bytes_per_token: int
    tokens_per_trial: int
    tokens_per_slice: int
    has_graphs: bool = False

    def pack_bytes(self, num_trials: int) -> int:
        """What a pack of so many trials needs at its largest batches."""
        return self.step_bytes(num_trials) + self.has_graphs * self._slice_bytes(num_trials)

    def step_bytes(self, num_trials: int) -> int:
        """The same without what graphs keep, which no measured peak shows."""
        return num_trials * self.bytes_per_trial + self._slice_bytes(num_trials)

    def _slice_bytes(self, num_trials: int) -> int:
        together = max(self.tokens_per_trial, min(num_trials * self.tokens_per_trial, self.tokens_per_slice))
        return together * self.bytes_per_token

    def max_trials(self, free_bytes: int | None) -> int:
        """The most trials that fit, 1 at least: whether a single one does, its training tells. None: nobody knows."""
        if free_bytes is None:
            return MAX_TRIALS
        fitting = [size for size in range(1, MAX_TRIALS + 1) if self.pack_bytes(size) <= SAFETY * free_bytes]
        return max(fitting, default=1)


def batch_tokens(batch_size: int, *, mean_length: float, length_std: float, longest: int) -> tuple[int, int]:
    """Word pieces of a random batch of rows of such lengths: on average, and of the largest that is to be expected.

    The latter is four standard deviations above the mean, which one batch in some ten thousand exceeds.
    """
    mean, spread = mean_length * batch_size, length_std * math.sqrt(batch_size)
    return int(mean), math.ceil(min(mean + 4 * spread, longest * batch_size))


def piece_bytes(method: str, shape: EncoderShape, length: int, dtype: torch.dtype) -> int:
    """Bytes one word piece of a sequence of this length keeps for the backward pass of a method."""
    return activation_bytes(shape, length, dtype) if uses_backbone(method) else BYTES_WITHOUT_BACKBONE


def activation_bytes(shape: EncoderShape, length: int, dtype: torch.dtype) -> int:
    """Bytes one word piece of a sequence of this length keeps for the backward pass through adapted layers.

    A layer keeps in the compute dtype: queries, keys and values (3D); attention with and without dropout (2HL), which
    the kernels in C do without; of each of its two sub-layers an adapter's input and the normalised rows (2D); what
    adapters have inside (at most D); the feed-forward layer before its activation (I). Masks are drawn again instead
    of kept. A fifth of one layer's worth each way is in flight.
    """
    width, heads, inner = shape.hidden_size, shape.num_heads, shape.up_width
    layer = (3 + 2 * 2 + 1) * width + 2 * heads * length + inner
    in_flight = 4 * width + 3 * inner + 4 * heads * length
    return dtype.itemsize * (shape.num_layers * layer + in_flight)


class PackSizer:
    """Finds the size of packs of one kind, growing while that pays.

    `limit` is how many trials the pack may hold now, and `is_settled` whether it stays so. It starts at the size that
    fills one pass through the encoder and doubles as long as memory allows and a doubled pack trains more examples a
    second. `typical_tokens` are the word pieces of a trial's batch on average.
    """

    def __init__(self, memory: MemoryModel, free_bytes: int | None, *, typical_tokens: int) -> None:
        self._memory = memory
        self._free_bytes = free_bytes
        self.max_trials = memory.max_trials(free_bytes)
        filling = max(1, memory.tokens_per_slice // max(1, typical_tokens))
        self.limit = min(self.max_trials, 2 ** (filling.bit_length() - 1), MAX_TRIALS)
        self.is_settled = False
        self._times: list[float] = []
        self._seconds_per_example: dict[int, float] = {}

    def judges(self, num_trials: int) -> bool:
        """Whether it is to know how long a step of so many trials takes: of a full pack, until it is settled."""
        return num_trials == self.limit and not self.is_settled

    def observe(self, num_trials: int, seconds_per_example: float) -> None:
        """Tell of a step that so many trials took together."""
        if not self.judges(num_trials):
            return
        self._times.append(seconds_per_example)
        if len(self._times) < STEPS_PER_JUDGEMENT:
            return
        self._seconds_per_example[self.limit] = statistics.median(self._times)
        self._times.clear()
        smaller = self._seconds_per_example.get(self.limit // 2)
        if smaller is not None and self._seconds_per_example[self.limit] > WORTHWHILE * smaller:
            self.limit //= 2
            self.is_settled = True
        elif self.limit * 2 <= self.max_trials:
            self.limit *= 2
        else:
            self.is_settled = True

    def correct(self, num_trials: int, measured_bytes: int) -> None:
        """Plan on with a measured peak where the arithmetic promised less."""
        promised = self._memory.step_bytes(num_trials)
        if self._free_bytes is None or measured_bytes <= promised:
            return
        fitting = self._memory.max_trials(self._free_bytes * promised // measured_bytes)
        if fitting < self.max_trials:
            self.max_trials = fitting
            self._cap()

    def shrink(self, num_trials: int) -> None:
        """Never again pack more than so many: they did not fit."""
        self.max_trials = max(1, num_trials)
        self.is_settled = True
        self._cap()

    def _cap(self) -> None:
        if self.limit > self.max_trials:
            self.limit = self.max_trials
            self._times.clear()  # they were of a larger pack
