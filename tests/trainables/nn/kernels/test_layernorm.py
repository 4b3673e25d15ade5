"""LayerNorm of a sum is the library's, its gradients too, with and without dropout, in C and in torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, InTorch, lay_out
from trainables.nn.kernels.layernorm import dropout_residual_layernorm, residual_layernorm
from trainables.nn.kernels.philox import dropout

EPS = 1e-5
Norm = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: Batch, width: int, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> list[Tensor]:
    """x, residual, weight and bias, of which everything is trained."""
    sizes = [(batch.num_rows, width), (batch.num_rows, width), *shapes]
    tensors = [random(*size, seed=seed).to(dtype) for seed, size in enumerate(sizes)]
    return [tensor.requires_grad_() for tensor in tensors]


def plain(batch: Batch, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The library's LayerNorm, trial by trial."""
    num_trials, width = len(batch.lengths_KB), x.shape[1]
    weights, biases = (each.expand(num_trials, width) for each in (weight, bias))
    total = x + residual
    normed = [F.layer_norm(total[batch.rows(k)], (width,), weights[k], biases[k], EPS) for k in range(num_trials)]
    return torch.cat(normed)


def with_gradients(output: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    upstream = random(*output.shape, seed=9).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, upstream)]


SHAPES = [((40,), (40,)), ((3, 40), (3, 40)), ((40,), (3, 40))]


@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients_are_the_library_s(path: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    batch = lay_out([[3, 5], [4, 1], [2, 2]], [0.1, 0.0, 0.7])
    tensors = inputs(batch, 40, shapes, torch.float32)
    x, residual, weight, bias = tensors
    ours = with_gradients(residual_layernorm(x, residual, weight, bias, EPS), tensors)
    for mine, expected in zip(ours, with_gradients(plain(batch, *tensors), tensors), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_dropout_it_is_dropout_and_then_layernorm(
    path: str, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> None:
    batch = lay_out([[3, 5], [4, 1], [2, 2]], [0.1, 0.0, 0.7])
    tensors = inputs(batch, 40, shapes, dtype)
    x, residual, weight, bias = tensors
    at_once = with_gradients(dropout_residual_layernorm(x, residual, weight, bias, EPS, batch.keys, 3), tensors)
    apart = residual_layernorm(dropout(x, batch.keys, 3), residual, weight, bias, EPS)
    expected = with_gradients(apart, tensors)
    for index in range(3):
        assert torch.equal(at_once[index], expected[index])
    for index in (3, 4):  # sums over rows, which may be in another order
        torch.testing.assert_close(
            at_once[index], expected[index], atol=1e-5, rtol=1e-2 if dtype is torch.bfloat16 else 1e-5
        )


def test_a_sum_is_not_rounded_before_it_is_normalised(path: str) -> None:
    batch = lay_out([[8]], [0.0])
    x, residual, weight, bias = (t.detach() for t in inputs(batch, 32, ((32,), (32,)), torch.bfloat16))
    exact = plain(batch, x.double(), residual.double(), weight.double(), bias.double())
    assert torch.equal(residual_layernorm(x, residual, weight, bias, EPS), exact.bfloat16())


def test_without_a_residual_the_rows_alone_are_normalised(path: str) -> None:
    batch = lay_out([[8]], [0.3])
    x, _, weight, bias = tensors = inputs(batch, 32, ((32,), (32,)), torch.float32)
    zero, trained = torch.zeros_like(x), [x, weight, bias]
    ours = with_gradients(residual_layernorm(x, None, weight, bias, EPS), trained)
    for mine, expected in zip(ours, with_gradients(plain(batch, x, zero, weight, bias), trained), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=3e-6)
    assert len(tensors) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_trial_equals_the_same_trial_alone_to_the_bit(path: str, dtype: torch.dtype) -> None:
    packed, alone = lay_out([[3, 5], [4, 4]], [0.1, 0.4]), lay_out([[3, 5]], [0.1])
    tensors = inputs(packed, 96, ((2, 96), (2, 96)), dtype)
    mine = packed.rows(0)
    part = [tensors[0][mine], tensors[1][mine], tensors[2][:1], tensors[3][:1]]
    together = with_gradients(dropout_residual_layernorm(*tensors, EPS, packed.keys, 3), tensors)
    upstream = random(packed.num_rows, 96, seed=9).to(dtype)[mine]
    output = dropout_residual_layernorm(*part, EPS, alone.keys, 3)
    assert torch.equal(output, together[0][mine])
    gradients = torch.autograd.grad(output, part, upstream)
    for index, rows in enumerate((mine, mine, slice(1), slice(1))):
        assert torch.equal(gradients[index], together[1 + index][rows])


def test_only_what_is_needed_has_a_gradient(path: str) -> None:
    batch = lay_out([[3, 5], [4, 4]], [0.1, 0.4])
    x, residual, weight, bias = (t.detach() for t in inputs(batch, 32, ((32,), (2, 32)), torch.float32))
    for trained in ([x], [residual], [weight], [bias], [x, bias]):
        for tensor in (x, residual, weight, bias):
            tensor.requires_grad_(any(tensor is one for one in trained))
        output = dropout_residual_layernorm(x, residual, weight, bias, EPS, batch.keys, 3)
        upstream = torch.ones_like(output)
        some = torch.autograd.grad(output, trained, upstream)
        everything = [tensor.requires_grad_() for tensor in (x, residual, weight, bias)]
        output = dropout_residual_layernorm(x, residual, weight, bias, EPS, batch.keys, 3)
        all_of_them = torch.autograd.grad(output, everything, upstream)
        for tensor, grad in zip(trained, some, strict=True):
            assert torch.equal(grad, next(g for t, g in zip(everything, all_of_them, strict=True) if t is tensor))


def test_gradients_of_weights_are_summed_in_float32(path: str) -> None:
    batch = lay_out([[600], [600]], [0.0, 0.0], spare_rows=0)
    x = torch.ones(1200, 8, dtype=torch.bfloat16)
    weight, bias = torch.ones(8), torch.zeros(2, 8, requires_grad=True)
    output = residual_layernorm(x, None, weight, bias, EPS)
    (grad,) = torch.autograd.grad(output, bias, torch.ones_like(output))
    assert grad.dtype == torch.float32
    assert torch.equal(grad, torch.full((2, 8), 600.0))  # in bf16 counting ends at 256
    assert batch.num_rows == 1200


def test_what_is_not_a_number_stays_in_its_row(path: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = random(6, 64, seed=0).to(dtype)
        x[2, 40] = float("nan")
        normed = residual_layernorm(x, x, torch.ones(64), torch.zeros(64), EPS)
        assert normed[2].isnan().all()
        assert normed[[0, 1, 3, 4, 5]].isfinite().all()


def test_shapes_are_known_on_the_meta_device() -> None:
    x = torch.empty(6, 64, device="meta", requires_grad=True)
    weight = torch.empty(64, device="meta")
    normed = residual_layernorm(x, x, weight, weight, EPS)
    assert normed.shape == x.shape
    assert torch.autograd.grad(normed.sum(), x)[0].shape == x.shape


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_c_and_torch_agree(data: st.DataObject, in_torch: InTorch) -> None:
    num_trials, width = data.draw(st.sampled_from([1, 5])), data.draw(st.integers(16, 200))
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=num_trials, max_size=num_trials))
    rates = data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=num_trials, max_size=num_trials))
    batch = lay_out([[length] for length in lengths], rates)
    shapes = tuple(data.draw(st.sampled_from([(width,), (num_trials, width)])) for _ in range(2))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    tensors = inputs(batch, width, shapes, dtype)
    ours = with_gradients(dropout_residual_layernorm(*tensors, EPS, batch.keys, 3), tensors)
    with in_torch():
        expected = with_gradients(dropout_residual_layernorm(*tensors, EPS, batch.keys, 3), tensors)
    # Of float32 the tolerance is that of sums of up to 250 rows in another order; of bf16, one unit of the last place,
    # and in sums over rows that of a number between 2 and 4, which one side has rounded up and the other down.
    rtol, atol = (1e-5, 1e-5) if dtype is torch.float32 else (2**-7, 2**-6)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=atol)
