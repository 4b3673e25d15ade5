"""Dropout with one random stream a trial: a trial's masks are its own, whoever trains beside it.

A trial draws for its own rows only, each as long as the longest of its batch. Where the pack is padded further, for
another trial's sake, the positions past that are left out of the draw, so they change nothing.

Suffixes: K trials, B sequences a trial, S = K*B, L length of the pack's batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


class _Bits(Protocol):
    """A stream of random bits that can be set back."""

    def draw(self, count: int) -> Tensor:
        """`count` random 64-bit integers, int64 [count]."""
        ...

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


class _HostBits:
    """NumPy's SFC64, a third faster on a CPU than torch's generator, whose serial draws would show in every step."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.SFC64(seed)

    def draw(self, count: int) -> Tensor:
        return torch.from_numpy(self._source.random_raw(count).view(np.int64))

    def get_state(self) -> Any:
        return self._source.state

    def set_state(self, state: Any) -> None:
        self._source.state = state


class _DeviceBits:
    """torch's generator of a GPU, which draws without the host."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def draw(self, count: int) -> Tensor:
        bits = torch.empty(count, dtype=torch.int64, device=self._generator.device)
        return bits.random_(-(2**63), None, generator=self._generator)

    def get_state(self) -> Any:
        return self._generator.get_state()

    def set_state(self, state: Any) -> None:
        self._generator.set_state(state)


class DropoutStream:
    """The random stream of one trial and the rate it drops at."""

    def __init__(self, seed: int, rate: float | None, device: torch.device) -> None:
        self.rate = rate  # None: each Dropout's own
        self._bits: _Bits = _HostBits(seed) if device.type == "cpu" else _DeviceBits(seed, device)

    def get_state(self) -> Any:
        """Where the stream stands; `set_state` takes it back there."""
        return self._bits.get_state()

    def set_state(self, state: Any) -> None:
        self._bits.set_state(state)

    def fill(self, mask: Tensor, rate: float) -> None:
        """Fill a mask of B rows: 0 with chance `rate`, else 1 / (1 - rate).

        Each element is decided by 16 random bits, four elements to a 64-bit draw, which costs a fraction of one
        Bernoulli draw each; the rate is thereby rounded to a multiple of 2**-16. A row begins with a fresh draw, so
        that a batch may be filled in parts.
        """
        rows, per_row = mask.shape[0], mask[0].numel()
        draws_per_row = -(-per_row // 4)
        bits = self._bits.draw(rows * draws_per_row).view(torch.int16).view(rows, -1)[:, :per_row]
        threshold = min(round(rate * 2**16), 2**16 - 1) - 2**15  # above, it would not be an int16
        # Straight into the mask's own dtype: on a CPU the detour over a mask of bools costs eight times as much.
        torch.ge(bits.view(mask.shape), threshold, out=mask)
        mask.mul_(1 / (1 - rate))


class DropoutStreams:
    """The streams of the K trials whose sequences lie one after the other in a batch.

    `lengths` are the K trials' own batch lengths where they differ from the pack's, else None.
    """

    def __init__(self, streams: Sequence[DropoutStream]) -> None:
        self.streams = list(streams)
        self.lengths: Sequence[int] | None = None

    def rates(self, default: float) -> list[float]:
        """The rate of each trial, `default` for those that have none of their own."""
        return [default if stream.rate is None else stream.rate for stream in self.streams]

    def mask(
        self, like: Tensor, default: float, *, along: tuple[int, ...], first: int = 0, is_fixed: bool = False
    ) -> Tensor:
        """A mask shaped like some consecutive sequences of the batch, in order from sequence `first`.

        `along` names the dimensions of `like` that run over positions, which a shorter trial fills only in part.
        Masks must be asked for in the order of sequences, each sequence once. With `is_fixed` the default is every
        trial's rate.
        """
        mask = torch.empty_like(like, memory_format=torch.contiguous_format, requires_grad=False)
        per_trial = self._sequences // len(self.streams)
        last = first + like.shape[0]
        rates = [default] * len(self.streams) if is_fixed else self.rates(default)
        for k, (stream, rate) in enumerate(zip(self.streams, rates, strict=True)):
            start, end = max(first, k * per_trial), min(last, (k + 1) * per_trial)
            if start >= end:
                continue
            part = mask[start - first : end - first]
            if rate == 0:
                part.fill_(1)
                continue
            if self.lengths is not None and along and self.lengths[k] < like.shape[along[0]]:
                part.fill_(1)
                for dimension in along:
                    part = part.narrow(dimension, 0, self.lengths[k])
            stream.fill(part, rate)
        return mask

    def expect(self, sequences: int, lengths: Sequence[int] | None) -> None:
        """Tell of the batch that masks will be asked for: its S sequences and the K trials' own lengths."""
        self._sequences = sequences
        self.lengths = lengths


class Dropout(nn.Module):
    """Zeroes elements of (S, L, ...) at its rate, or each trial's own, while training; an identity without streams."""

    def __init__(self, rate: float, *, is_fixed: bool = False) -> None:
        """`is_fixed`: the rate is an option of its own, which a trial's dropout does not override."""
        super().__init__()
        self.rate = rate
        self.is_fixed = is_fixed
        self.streams: DropoutStreams | None = None

    @property
    def is_active(self) -> bool:
        if not self.training or self.streams is None:
            return False
        return self.rate > 0 if self.is_fixed else any(self.streams.rates(self.rate))

    def mask(self, like: Tensor, *, along: tuple[int, ...] = (1,), first: int = 0) -> Tensor:
        """See `DropoutStreams.mask`."""
        assert self.streams is not None  # asked for only where active
        return self.streams.mask(like, self.rate, along=along, first=first, is_fixed=self.is_fixed)

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.is_active:
            return hidden
        return hidden * self.mask(hidden, along=(1,) if hidden.dim() > 2 else ())


def connect(model: nn.Module, streams: DropoutStreams | None) -> None:
    """Let every Dropout of a model draw from these streams, or none."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.streams = streams
