"""Dropout whose masks are a function of trial, step, place in the batch, site and element; see `nn.kernels.philox`.

A site is a place of the model where something is dropped out. Every `Dropout` of a model is one, numbered in the order
in which the model holds them, which is the same for a trial whoever trains beside it.

Suffixes: K trials, N rows, S sequences, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.nn.kernels.philox import DropoutKeys, dropout
from trainables.nn.pieces import Pieces


class TrialRates:
    """The dropout of some trials, at every site: vectors on their device, each made when it is first asked for.

    Args:
        own: each trial's own rate; None takes each site's.
        device: of the vectors.
    """

    def __init__(self, own: Sequence[float | None], device: torch.device) -> None:
        self.own = list(own)
        self._device = device
        self._known: dict[tuple[float, bool], Tensor | None] = {}

    def at(self, default: float, *, is_fixed: bool) -> Tensor | None:
        """Every trial's rate (K,) at a site with this rate; None where nothing is dropped."""
        if (default, is_fixed) not in self._known:
            rates = [default if rate is None or is_fixed else rate for rate in self.own]
            vector = torch.tensor(rates, dtype=torch.float32).to(self._device) if any(rates) else None
            self._known[default, is_fixed] = vector
        return self._known[default, is_fixed]


class StepKeys:
    """What the masks of one step of some trials follow from.

    Args:
        seeds: of each trial's dropout; int64 (K,), on the device, where the host does not know the steps.
        steps: each trial's step; likewise.
        rates: each trial's own rate; None takes each site's.
        pieces: the batch.
    """

    def __init__(
        self,
        seeds: Sequence[int] | Tensor,
        steps: Sequence[int] | Tensor,
        rates: Sequence[float | None] | TrialRates,
        pieces: Pieces,
    ) -> None:
        device = pieces.input_ids_N.device
        self.seeds, self.steps = seeds, steps
        if isinstance(seeds, Tensor) and isinstance(steps, Tensor):
            seeds_K, steps_K = seeds, steps
        else:
            seeds_K, steps_K = torch.tensor([list(seeds), list(steps)], dtype=torch.int64).to(device)
        self._rates = rates if isinstance(rates, TrialRates) else TrialRates(rates, device)
        per_trial = pieces.num_sequences // pieces.num_trials
        self.num_rows = pieces.num_rows
        unused = torch.zeros(len(seeds_K), device=device)  # every site gives its own
        self.of_rows = DropoutKeys(
            seeds_K=seeds_K,
            steps_K=steps_K,
            rates_K=unused,
            places_N=(pieces.owners_N % per_trial).to(torch.int32),
            positions_N=pieces.positions_N.to(torch.int32),
        )
        places_S = torch.arange(pieces.num_sequences, device=device, dtype=torch.int32) % per_trial
        self.of_sequences = DropoutKeys(
            seeds_K=seeds_K,
            steps_K=steps_K,
            rates_K=unused,
            places_N=places_S,
            positions_N=torch.zeros_like(places_S),
        )

    def rates_K(self, default: float, *, is_fixed: bool) -> Tensor | None:
        """Every trial's rate at a site; None where nothing is dropped."""
        return self._rates.at(default, is_fixed=is_fixed)

    @contextmanager
    def in_global_generator(self, place: int, device: torch.device) -> Iterator[None]:
        """Let torch's global generator draw for one of the trials, in code that draws from no other.

        What it draws follows from the trial's seed and step, and afterwards it goes on where it stood. Waits for the
        device where only that knows the step.
        """
        drawn_from = f"{int(self.seeds[place])}:{int(self.steps[place])}"
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int.from_bytes(hashlib.sha256(drawn_from.encode()).digest()[:8], "big") >> 2)
            yield

    def own_rate(self, place: int) -> float | None:
        """The rate of one of the trials, None for each site's."""
        return self._rates.own[place]


class Dropout(nn.Module):
    """Zeroes elements of rows at its rate, or each trial's own, while training; an identity without keys."""

    def __init__(self, rate: float, *, is_fixed: bool = False) -> None:
        """`is_fixed`: the rate is an option of its own, which a trial's dropout does not override."""
        super().__init__()
        self.rate = rate
        self.is_fixed = is_fixed
        self.site = 0
        self.keys: StepKeys | None = None

    @property
    def rates_K(self) -> Tensor | None:
        """Every trial's rate now; None where nothing is dropped."""
        if not self.training or self.keys is None:
            return None
        return self.keys.rates_K(self.rate, is_fixed=self.is_fixed)

    def forward(self, hidden: Tensor) -> Tensor:
        """Of rows (N, W), or of one row a sequence (S, W), which are taken for those of the first word pieces."""
        rates_K = self.rates_K
        if rates_K is None:
            return hidden
        return dropout(hidden, self.keys_for(hidden), self.site, rates_K)

    def keys_for(self, hidden: Tensor) -> DropoutKeys:
        """The keys of all rows of a batch, or of one row a sequence."""
        assert self.keys is not None  # asked for only where something is dropped
        return self.keys.of_rows if len(hidden) == self.keys.num_rows else self.keys.of_sequences


def number_sites(model: nn.Module) -> list[Dropout]:
    """Number the sites of a model, and list them."""
    sites = [module for module in model.modules() if isinstance(module, Dropout)]
    for number, module in enumerate(sites):
        module.site = number
    return sites
