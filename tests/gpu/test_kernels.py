"""On a GPU: the kernels in Triton against the arithmetic in torch beside them, on the same card."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from trainables.nn.kernels import triton
from trainables.nn.kernels.adamw import adamw_
from trainables.nn.kernels.attention import attend, attend_first
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm
from trainables.nn.kernels.philox import DropoutKeys, multiply
from trainables.nn.kernels.sequences import Sequences

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")
DTYPES = [torch.float32, torch.bfloat16]
RATES = [0.1, 0.0, 0.5]
LENGTHS = [[3, 20, 0, 1], [9, 9, 2, 64], [128, 1, 17, 33]]
EPS = 1e-12
Compute = Callable[[], list[Tensor]]


def on_device(batch: Batch) -> Batch:
    def moved(keys: DropoutKeys) -> DropoutKeys:
        tensors = {field.name: getattr(keys, field.name).to(DEVICE) for field in dataclasses.fields(keys)}
        return DropoutKeys(**tensors)

    starts, lengths = batch.starts_S.numpy(), batch.lengths_KB.ravel()
    sequences = Sequences(
        starts, lengths, num_trials=len(batch.lengths_KB), num_rows=batch.num_rows, device=DEVICE
    )  # fmt: skip
    return dataclasses.replace(
        batch, keys=moved(batch.keys), first_keys=moved(batch.first_keys), sequences=sequences
    )  # fmt: skip


@pytest.fixture
def batch() -> Batch:
    return on_device(lay_out(LENGTHS, RATES))


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Compute], list[tuple[Tensor, Tensor]]]:
    """What Triton computes beside what torch does."""

    def compute(function: Compute) -> list[tuple[Tensor, Tensor]]:
        monkeypatch.delenv("ADAPTUNE_TRITON", raising=False)
        assert triton.serves(torch.zeros(1, device=DEVICE))
        ours = function()
        monkeypatch.setenv("ADAPTUNE_TRITON", "0")
        return list(zip(ours, function(), strict=True))

    return compute


Both = Callable[[Compute], list[tuple[Tensor, Tensor]]]


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def with_gradients(output: Tensor, *tensors: Tensor) -> list[Tensor]:
    upstream = random(*output.shape, seed=9, dtype=output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, upstream)]


def assert_near(pairs: list[tuple[Tensor, Tensor]], dtype: torch.dtype, factor: float = 1.0) -> None:
    tolerance = (2e-2 if dtype is torch.bfloat16 else 1e-5) * factor
    for mine, expected in pairs:
        assert mine.dtype is expected.dtype
        scale = max(1.0, expected.float().abs().max().item())
        torch.testing.assert_close(mine.float(), expected.float(), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [384, 768, 40])
def test_dropout_is_the_same_to_the_bit(batch: Batch, both: Both, dtype: torch.dtype, width: int) -> None:
    rows = random(batch.num_rows, width, seed=1, dtype=dtype)
    rates_K = torch.tensor(RATES, device=DEVICE)
    for mine, expected in both(lambda: [multiply(rows, batch.keys, 5, rates_K)]):
        assert torch.equal(mine, expected)
        assert (mine == 0).any()


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [((384,), (384,)), ((3, 384), (3, 384)), ((768,), (3, 768)), ((40,), (40,))])
@pytest.mark.parametrize("has_residual", [True, False])
def test_layernorm(
    batch: Batch, both: Both, drops: bool, dtype: torch.dtype, shapes: tuple[tuple[int, ...], ...], has_residual: bool
) -> None:
    width = shapes[0][-1]
    x, residual = (random(batch.num_rows, width, seed=seed, dtype=dtype).requires_grad_() for seed in (1, 2))
    weight, bias = (random(*shape, seed=seed, dtype=dtype).requires_grad_() for seed, shape in enumerate(shapes, 3))
    added = residual if has_residual else None
    trained = [x, weight, bias, *([residual] if has_residual else [])]

    def compute() -> list[Tensor]:
        if drops:
            out = dropout_residual_layernorm(x, added, weight, bias, EPS, batch.keys, 3)
        else:
            out = residual_layernorm(x, added, weight, bias, EPS)
        return with_gradients(out, *trained)

    assert_near(both(compute), dtype, factor=2)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width"), [(12, 384), (12, 768), (2, 40)])
def test_attention(batch: Batch, both: Both, drops: bool, dtype: torch.dtype, heads: int, width: int) -> None:
    qkv = random(batch.num_rows, 3 * width, seed=1, dtype=dtype).requires_grad_()
    keys = batch.keys if drops else None

    def compute() -> list[Tensor]:
        return with_gradients(attend(qkv, heads, batch.sequences, keys, 6), qkv)

    assert_near(both(compute), dtype, factor=2)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width"), [(12, 384), (12, 768), (2, 40)])
def test_attention_of_first_tokens(
    batch: Batch, both: Both, drops: bool, dtype: torch.dtype, heads: int, width: int
) -> None:
    query = random(len(batch.starts_S), width, seed=2, dtype=dtype).requires_grad_()
    key_value = random(batch.num_rows, 2 * width, seed=1, dtype=dtype).requires_grad_()
    keys = batch.keys if drops else None

    def compute() -> list[Tensor]:
        key, value = key_value.split(width, dim=1)
        return with_gradients(attend_first(query, key, value, heads, batch.sequences, keys, 6), query, key_value)

    assert_near(both(compute), dtype, factor=2)


def test_adamw(both: Both) -> None:
    decayed, size = 70_000, 100_003
    grads = random(4, size, seed=1)

    def compute() -> list[Tensor]:
        values, first, second = (
            random(4, size, seed=2),
            torch.zeros(4, size, device=DEVICE),
            torch.zeros(4, size, device=DEVICE),
        )
        seen = values.bfloat16()
        for step in range(1, 4):
            left = grads * step
            adamw_(
                values,
                left,
                first,
                second,
                num_decayed=decayed,
                rates_K=torch.tensor([1e-3, 3e-3, 1e-2, 0.0], dtype=torch.float64, device=DEVICE),
                decays_K=torch.tensor([0.0, 0.01, 0.1, 0.1], dtype=torch.float64, device=DEVICE),
                max_norms_K=torch.tensor([1.0, 0.1, 1e9, 1.0], dtype=torch.float64, device=DEVICE),
                steps_K=torch.full((4,), step, device=DEVICE),
                seen_KP=seen,
            )
        return [values, left, first, second, seen]

    for mine, expected in both(compute):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_masks_do_not_depend_on_the_device(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTUNE_TRITON", raising=False)
    here = lay_out(LENGTHS, RATES)
    ones = torch.ones(batch.num_rows, 384)
    on_cpu = multiply(ones, here.keys, 5, torch.tensor(RATES))
    on_gpu = multiply(ones.to(DEVICE), batch.keys, 5, torch.tensor(RATES, device=DEVICE))
    assert np.array_equal(on_cpu.numpy(), on_gpu.cpu().numpy())
