"""What the tests of kernels need: a batch of ragged sequences with its keys, and a choice between C and torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.nn.kernels import native
from trainables.nn.kernels.philox import DropoutKeys
from trainables.nn.kernels.sequences import Sequences

InTorch = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """K trials' sequences laid end to end; segments are padded with dummy rows to the longest's and some more."""

    lengths_KB: np.ndarray
    keys: DropoutKeys
    first_keys: DropoutKeys  # of each sequence's first row alone
    sequences: Sequences
    starts_S: Tensor

    @property
    def num_rows(self) -> int:
        return len(self.keys.places_N)

    def rows(self, k: int) -> slice:
        """Trial k's segment."""
        per_trial = self.num_rows // len(self.lengths_KB)
        return slice(k * per_trial, (k + 1) * per_trial)

    @property
    def is_dummy_N(self) -> Tensor:
        dummy = torch.ones(self.num_rows, dtype=torch.bool)
        for start, length in zip(self.starts_S.tolist(), self.lengths_KB.ravel().tolist(), strict=True):
            dummy[start : start + length] = False
        return dummy


def lay_out(lengths: Sequence[Sequence[int]], rates: Sequence[float], *, spare_rows: int = 2) -> Batch:
    """A batch of sequences of these lengths, of trials with these rates; seeds and steps are arbitrary but fixed."""
    lengths_KB = np.array(lengths)
    num_trials, per_trial = lengths_KB.shape
    segment = int(lengths_KB.sum(axis=1).max()) + spare_rows
    starts_KB = np.cumsum(lengths_KB, axis=1) - lengths_KB + np.arange(num_trials)[:, None] * segment
    places, positions = (np.zeros(num_trials * segment, dtype=np.int32) for _ in range(2))
    for place, (start, length) in enumerate(zip(starts_KB.ravel(), lengths_KB.ravel(), strict=True)):
        places[start : start + length] = place % per_trial
        positions[start : start + length] = np.arange(length)
    seeds = [(k + 1) * 0x1234_5678_9ABC_DEF1 % 2**63 for k in range(num_trials)]

    def keys(places_N: np.ndarray, positions_N: np.ndarray) -> DropoutKeys:
        return DropoutKeys(
            seeds_K=torch.tensor(seeds),
            steps_K=torch.arange(num_trials) * 1000 + 2**32 - 1,
            rates_K=torch.tensor(rates, dtype=torch.float32),
            places_N=torch.from_numpy(places_N),
            positions_N=torch.from_numpy(positions_N),
        )

    first = np.tile(np.arange(per_trial, dtype=np.int32), num_trials)
    return Batch(
        lengths_KB=lengths_KB,
        keys=keys(places, positions),
        first_keys=keys(first, np.zeros_like(first)),
        sequences=Sequences(
            starts_KB.ravel(),
            lengths_KB.ravel(),
            num_trials=num_trials,
            num_rows=num_trials * segment,
            device=torch.device("cpu"),
        ),
        starts_S=torch.from_numpy(starts_KB.ravel()),
    )


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """The kernels in C are compiled once, before tests turn them on and off."""
    if native.library() is None:
        pytest.skip("not run: these tests compare the kernels in C with torch, and there is no C compiler")


@pytest.fixture(scope="session", name="in_torch")
def in_torch_fixture() -> InTorch:
    """A context in which there are no kernels in C."""

    @contextmanager
    def in_torch() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "library", lambda: None)
            yield

    return in_torch


@pytest.fixture(params=["C", "torch"])
def path(request: pytest.FixtureRequest, in_torch: InTorch) -> Iterator[str]:
    """Runs a test once with the kernels in C and once without."""
    if request.param == "C":
        yield "C"
        return
    with in_torch():
        yield "torch"
