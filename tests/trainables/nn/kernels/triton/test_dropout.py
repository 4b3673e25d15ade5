"""Dropout in Triton is that in torch to the bit, forwards and backwards."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from tests.trainables.nn.kernels.triton.conftest import InTriton
from trainables.nn.kernels.philox import dropout
from trainables.nn.kernels.triton import dropout as triton_dropout


@pytest.mark.parametrize("width", [8, 13, 72])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_torch_s_to_the_bit(
    batch: Batch, width: int, dtype: torch.dtype, in_triton: InTriton
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(batch.num_rows, width, generator=generator).to(dtype) for _ in range(2))
    x[0, 3] = torch.nan  # stays so even where it is dropped
    x.requires_grad_()
    expected = dropout(x, batch.keys, 17)
    (expected_grad,) = torch.autograd.grad(expected, x, upstream)
    with in_triton():
        ours = dropout(x, batch.keys, 17)
        (grad,) = torch.autograd.grad(ours, x, upstream)
    assert ours.dtype is dtype
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=0)


def test_rows_that_lie_apart_and_keys_of_one_row_a_sequence(batch: Batch, in_triton: InTriton) -> None:
    x = torch.randn(len(batch.starts_S), 2, 24)[:, 1]
    rates_K = torch.full_like(batch.keys.rates_K, 0.25)
    expected = dropout(x, batch.first_keys, 1, rates_K)
    with in_triton():
        assert torch.equal(dropout(x, batch.first_keys, 1, rates_K), expected)
        assert dropout(torch.empty(0, 24), batch.first_keys, 1).shape == (0, 24)


def test_the_number_of_launches_does_not_grow_with_the_number_of_trials(
    batch: Batch, in_triton: InTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, grids = triton_dropout._multiply, []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(triton_dropout, "_multiply", Counted())
    with in_triton():
        dropout(torch.ones(batch.num_rows, 24), batch.keys, 1)
    assert len(grids) == 1


def test_rows_that_are_wider_than_a_program_are_cut(in_triton: InTriton) -> None:
    batch, x = lay_out([[2]], [0.3], spare_rows=0), torch.ones(2, 1032)
    expected = dropout(x, batch.keys, 4)
    with in_triton():
        assert torch.equal(dropout(x, batch.keys, 4), expected)
