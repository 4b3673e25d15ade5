"""Means of sequences in Triton are those of torch, and the same bits whatever lies beside a sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from tests.trainables.nn.kernels.triton.conftest import InTriton
from trainables.nn.kernels.pooling import mean


def owners_of(batch: Batch) -> Tensor:
    owners = torch.full((batch.num_rows,), len(batch.starts_S))
    for s, (start, length) in enumerate(zip(batch.starts_S.tolist(), batch.lengths_KB.ravel().tolist(), strict=True)):
        owners[start : start + length] = s
    return owners


@pytest.mark.parametrize("width", [5, 128, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_and_their_gradients_are_torch_s(dtype: torch.dtype, width: int, in_triton: InTriton) -> None:
    batch = lay_out([[3, 17], [40, 1]], [0.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch.num_rows, width, generator=generator).to(dtype).requires_grad_()
    upstream = torch.randn(4, width, generator=generator).to(dtype)

    def pooled() -> list[Tensor]:
        out = mean(hidden, owners_of(batch), batch.sequences)
        return [out, *torch.autograd.grad(out, hidden, upstream)]

    expected = pooled()
    with in_triton():
        ours = pooled()
    rtol = 1e-5 if dtype is torch.float32 else 2**-7
    for mine, other in zip(ours, expected, strict=True):
        assert mine.dtype is dtype
        torch.testing.assert_close(mine, other, rtol=rtol, atol=1e-6)
    assert ours[1][batch.is_dummy_N].eq(0).all()


def test_a_sequence_without_rows_has_no_mean(in_triton: InTriton) -> None:
    batch = lay_out([[3, 0, 2]], [0.0])
    hidden = torch.randn(batch.num_rows, 8)
    expected = mean(hidden, owners_of(batch), batch.sequences)
    with in_triton():
        ours = mean(hidden, owners_of(batch), batch.sequences)
    torch.testing.assert_close(ours, expected, equal_nan=True)
    assert ours[1].isnan().all()
