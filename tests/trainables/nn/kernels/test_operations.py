"""A pack is computed in as many operations as one trial, and where only shapes matter, shapes alone are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from trainables.nn.kernels.adamw import adamw_
from trainables.nn.kernels.attention import attend, attend_first
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm
from trainables.nn.kernels.philox import DropoutKeys, dropout
from trainables.nn.kernels.sequences import Sequences

WIDTH, HEADS = 16, 2


class Counter(TorchDispatchMode):
    """Counts the operations that are dispatched, views and allocations too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def rows(batch: Batch, width: int = WIDTH) -> Tensor:
    return torch.ones(batch.num_rows, width, requires_grad=True)


def norm_weights(batch: Batch) -> tuple[Tensor, Tensor]:
    num_trials = len(batch.lengths_KB)
    return torch.ones(num_trials, WIDTH, requires_grad=True), torch.zeros(num_trials, WIDTH, requires_grad=True)


def update(batch: Batch) -> Tensor:
    num_trials = len(batch.lengths_KB)
    numbers = torch.ones(num_trials)
    values = [torch.ones(num_trials, 30) for _ in range(4)]
    adamw_(
        *values,
        num_decayed=20,
        rates_K=numbers,
        decays_K=numbers,
        max_norms_K=numbers,
        steps_K=torch.ones(num_trials, dtype=torch.int64),
    )
    return torch.zeros(1, requires_grad=True).sum()


def first(batch: Batch) -> Tensor:
    query = torch.ones(len(batch.starts_S), WIDTH, requires_grad=True)
    return attend_first(query, rows(batch), rows(batch), HEADS, batch.sequences, batch.keys, 1)


KERNELS: dict[str, Callable[[Batch], Tensor]] = {
    "adamw": update,
    "attend": lambda batch: attend(rows(batch, 3 * WIDTH), HEADS, batch.sequences, batch.keys, 1),
    "attend_first": first,
    "dropout": lambda batch: dropout(rows(batch), batch.keys, 1),
    "dropout_residual_layernorm": lambda batch: dropout_residual_layernorm(
        rows(batch), rows(batch), *norm_weights(batch), 1e-5, batch.keys, 1
    ),
    "residual_layernorm": lambda batch: residual_layernorm(rows(batch), rows(batch), *norm_weights(batch), 1e-5),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_their_number_does_not_grow_with_the_trials(path: str, kernel: str) -> None:
    counts = []
    for num_trials in (1, 7):
        batch = lay_out([[12, 5, 9]] * num_trials, [0.1] * num_trials)
        assert len(batch.sequences.groups) == 1
        with Counter() as counter:
            KERNELS[kernel](batch).sum().backward()
        counts.append(counter.count)
    assert counts[0] == counts[1] > 3


def test_on_the_meta_device_shapes_alone_are_computed() -> None:
    meta = torch.device("meta")
    numbers = torch.empty(2, dtype=torch.int64, device=meta)
    places = torch.empty(12, dtype=torch.int32, device=meta)
    keys = DropoutKeys(seeds_K=numbers, steps_K=numbers, rates_K=numbers.float(), places_N=places, positions_N=places)
    sequences = Sequences(np.array([0, 6]), np.array([5, 4]), num_trials=2, num_rows=12, device=meta)
    qkv = torch.empty(12, 3 * WIDTH, device=meta, requires_grad=True)
    attended = attend(qkv, HEADS, sequences, keys, 1)
    weight = torch.empty(WIDTH, device=meta)
    normed = dropout_residual_layernorm(attended, dropout(attended, keys, 2), weight, weight, 1e-5, keys, 3)
    query, key, value = normed[:2], normed, normed
    output = attend_first(query, key, value, HEADS, sequences, keys, 1)
    assert output.shape == (2, WIDTH)
    assert torch.autograd.grad(output.sum(), qkv)[0].shape == qkv.shape
