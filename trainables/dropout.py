"""Dropout with one random stream a trial: a trial's masks are its own, whoever trains beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropoutStreams:
    """The random streams of K trials, shared by every Dropout of one model."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def mask(self, like: Tensor, rate: float) -> Tensor:
        """A mask shaped like a (K*B, ...) tensor: 0 with chance `rate`, else 1 / (1 - rate).

        Each element is decided by 16 random bits, four elements to a 64-bit draw, which costs a seventh of one
        Bernoulli draw each; the rate is thereby rounded to a multiple of 2**-16.
        """
        per_trial = like.numel() // len(self.generators)
        draws = torch.empty(len(self.generators), -(-per_trial // 4), dtype=torch.int64, device=like.device)
        for row, generator in zip(draws, self.generators, strict=True):
            row.random_(-(2**63), None, generator=generator)
        bits = draws.view(torch.int16)[:, :per_trial]
        threshold = min(round(rate * 2**16), 2**16 - 1) - 2**15  # above, it would not be an int16
        return (bits >= threshold).to(like.dtype).mul_(1 / (1 - rate)).view(like.shape)


class Dropout(nn.Module):
    """Zeroes elements at `rate` while training; an identity without streams or at rate 0."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.streams: DropoutStreams | None = None

    @property
    def is_active(self) -> bool:
        return self.training and self.rate > 0 and self.streams is not None

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.is_active or self.streams is None:
            return hidden
        return hidden * self.streams.mask(hidden, self.rate)


def connect(model: nn.Module, streams: DropoutStreams, rate: float | None) -> None:
    """Let every Dropout of a model draw from these streams, at `rate` where one is given."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.streams = streams
            module.rate = module.rate if rate is None else rate
