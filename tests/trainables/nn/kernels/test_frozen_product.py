"""A product with frozen weights equals torch's, with a gradient for its rows and none for its weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.nn.kernels import frozen_product
from trainables.nn.kernels.frozen_product import frozen_linear


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("has_fused_bias", [frozen_product._HAS_FUSED_BIAS, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 13, 600])
def test_it_is_torch_s_product(
    rows: int, dtype: torch.dtype, has_fused_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_product, "_HAS_FUSED_BIAS", has_fused_bias)
    x, weight, bias = (
        random(rows, 24, seed=0, dtype=dtype),
        random(40, 24, seed=1, dtype=dtype),
        random(40, seed=2, dtype=dtype),
    )
    x.requires_grad_()
    ours, theirs = frozen_linear(x, weight, bias), F.linear(x, weight, bias)
    assert ours.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 2**-7
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    upstream = random(rows, 40, seed=3, dtype=dtype)
    mine, expected = (torch.autograd.grad(each, x, upstream)[0] for each in (ours, theirs))
    torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance)


def test_parts_of_a_weight_and_rows_that_lie_apart_are_understood() -> None:
    weight, bias = random(48, 16, seed=0, dtype=torch.bfloat16), random(48, seed=1, dtype=torch.bfloat16)
    rows = random(10, 32, seed=2, dtype=torch.bfloat16)[:, 8:24]
    ours = frozen_linear(rows, weight[16:], bias[16:])
    torch.testing.assert_close(ours, F.linear(rows, weight, bias)[:, 16:], rtol=2**-7, atol=2**-7)
