"""LayerNorm in Triton is that in torch, its gradients too, with and without dropout; a pack changes no trial's bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from tests.trainables.nn.kernels.test_layernorm import EPS, inputs, random, with_gradients
from tests.trainables.nn.kernels.triton.conftest import InTriton
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm


def assert_near(ours: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    """Of float32 the tolerance is that of sums in another order; of bf16 one unit of the last place."""
    rtol, atol = (1e-5, 1e-5) if dtype is torch.float32 else (2**-7, 2**-7)
    for mine, other in zip(ours, expected, strict=True):
        assert mine.dtype is other.dtype
        torch.testing.assert_close(mine, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("width", [40, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.thinned
def test_values_and_gradients_are_torch_s(
    batch: Batch, dtype: torch.dtype, width: int, drops: bool, in_triton: InTriton
) -> None:
    num_trials = len(batch.lengths_KB)
    for shapes in [((width,), (width,)), ((num_trials, width),) * 2, ((width,), (num_trials, width))]:
        tensors = inputs(batch, width, shapes, dtype)

        def normed(tensors: list[Tensor] = tensors) -> list[Tensor]:
            x, residual, weight, bias = tensors
            if drops:
                out = dropout_residual_layernorm(x, residual, weight, bias, EPS, batch.keys, 3)
            else:
                out = residual_layernorm(x, residual, weight, bias, EPS)
            return with_gradients(out, tensors)

        expected = normed()
        with in_triton():
            assert_near(normed(), expected, dtype)


@pytest.mark.parametrize("frozen", ["residual", "x", "weight", "bias", "weight and bias", "all but bias"])
def test_only_what_is_trained_gets_a_gradient(frozen: str, in_triton: InTriton) -> None:
    batch = lay_out([[3, 5], [4, 1]], [0.1, 0.5])
    tensors = inputs(batch, 24, ((2, 24), (2, 24)), torch.float32)
    for name, tensor in zip(("x", "residual", "weight", "bias"), tensors, strict=True):
        is_frozen = name != "bias" if frozen == "all but bias" else name in frozen.split(" and ")
        tensor.requires_grad_(not is_frozen)
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    x, residual, weight, bias = tensors
    for keys in (None, batch.keys):

        def normed(keys: object = keys) -> list[Tensor]:
            if keys is None:
                return with_gradients(residual_layernorm(x, residual, weight, bias, EPS), trained)
            return with_gradients(dropout_residual_layernorm(x, residual, weight, bias, EPS, batch.keys, 3), trained)

        expected = normed()
        with in_triton():
            assert_near(normed(), expected, torch.float32)


def test_without_a_residual_and_with_weights_that_lie_apart(in_triton: InTriton) -> None:
    batch = lay_out([[3, 5], [4, 1]], [0.1, 0.5])
    x = random(batch.num_rows, 24, seed=0).requires_grad_()
    rows = random(2, 100, seed=1).requires_grad_()  # a pack's: each trial's weight and bias are a part of its row

    def normed() -> list[Tensor]:
        out = residual_layernorm(x, None, rows[:, 7:31], rows[:, 31:55], EPS)
        return with_gradients(out, [x, rows])

    expected = normed()
    with in_triton():
        assert_near(normed(), expected, torch.float32)
        with torch.no_grad():
            assert_near(
                [residual_layernorm(x, None, rows[0, 7:31], rows[0, 31:55], EPS)],
                [torch.nn.functional.layer_norm(x, (24,), rows[0, 7:31], rows[0, 31:55], EPS)],
                torch.float32,
            )


def test_a_packed_trial_is_the_same_trial_alone_to_the_bit(in_triton: InTriton) -> None:
    packed = lay_out([[20, 5], [30, 31], [4, 1]], [0.1, 0.5, 0.3])
    tensors = [tensor.detach() for tensor in inputs(packed, 24, ((3, 24), (3, 24)), torch.float32)]
    upstream = random(packed.num_rows, 24, seed=9)
    upstream[packed.is_dummy_N] = 0  # nothing comes from dummy rows
    with in_triton():
        together = _gradients(packed, tensors, upstream)
        for k in range(3):
            alone = lay_out(packed.lengths_KB[k : k + 1].tolist(), [0.0], spare_rows=0)
            own = {name: getattr(packed.keys, name)[k : k + 1] for name in ("seeds_K", "steps_K", "rates_K")}
            alone = dataclasses.replace(alone, keys=dataclasses.replace(alone.keys, **own))
            rows = slice(packed.rows(k).start, packed.rows(k).start + alone.num_rows)
            parts = [tensors[0][rows], tensors[1][rows], tensors[2][k : k + 1], tensors[3][k : k + 1]]
            found = _gradients(alone, parts, upstream[rows])
            for mine, other in zip(found, together, strict=True):
                assert torch.equal(mine, other[rows] if len(other) == packed.num_rows else other[k : k + 1])


def _gradients(batch: Batch, tensors: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    x, residual, weight, bias = leaves
    out = dropout_residual_layernorm(x, residual, weight, bias, EPS, batch.keys, 3)
    return out.detach(), *torch.autograd.grad(out, leaves, upstream)


def test_a_sum_is_not_rounded_before_it_is_normalised(in_triton: InTriton) -> None:
    x, residual, weight, bias = (
        random(*size, seed=s).bfloat16() for s, size in enumerate([(8, 32), (8, 32), (32,), (32,)])
    )
    exact = torch.nn.functional.layer_norm(x.double() + residual.double(), (32,), weight.double(), bias.double(), EPS)
    with in_triton():
        assert torch.equal(residual_layernorm(x, residual, weight, bias, EPS), exact.bfloat16())
        x[2, 5] = torch.nan
        normed = residual_layernorm(x, residual, weight, bias, EPS)
    assert normed[2].isnan().all()
    assert normed[[0, 1, 3, 4, 5, 6, 7]].isfinite().all()


def test_shapes_are_known_on_the_meta_device(in_triton: InTriton) -> None:
    x, weight = torch.empty(6, 64, device="meta", requires_grad=True), torch.empty(64, device="meta")
    with in_triton():
        normed = residual_layernorm(x, x, weight, weight, EPS)
        assert torch.autograd.grad(normed.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_weight_and_bias_may_be_of_different_dtypes(dtypes: tuple[torch.dtype, ...], in_triton: InTriton) -> None:
    x = random(12, 24, seed=0).bfloat16()
    weight, bias = (random(2, 24, seed=seed).to(dtype).requires_grad_() for seed, dtype in enumerate(dtypes))

    def normed() -> list[Tensor]:
        return with_gradients(residual_layernorm(x, None, weight, bias, EPS), [weight, bias])

    expected = normed()
    with in_triton():
        assert_near(normed(), expected, torch.bfloat16)
