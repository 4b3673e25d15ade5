"""Bottlenecks in Triton are those in torch, and their gradients, also with weights that are parts of a trial's row."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainables.nn.kernels.triton.conftest import InTriton
from trainables.nn.kernels.bottleneck import Weights, add_bottleneck
from trainables.nn.kernels.triton import bottleneck

Activation = Callable[[Tensor], Tensor]
TANH_GELU = functools.partial(F.gelu, approximate="tanh")


@pytest.fixture(autouse=True)
def small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs and several steps of each, also for few rows."""
    monkeypatch.setattr(bottleneck, "_ROWS", 16)
    monkeypatch.setattr(bottleneck, "_CHUNK", 32)
    monkeypatch.setattr(bottleneck, "_SECTION", 16)
    monkeypatch.setattr(bottleneck, "_SUMS", 64)


def with_gradients(
    num_trials: int,
    size: int,
    dtype: torch.dtype,
    activation: Activation,
    *,
    scale: float = 1.0,
    rows: int = 21,
    width: int = 40,
    reads_hidden: bool = True,
) -> list[Tensor]:
    """The result and the gradients of rows and of the trials' numbers, of which each weight is a part."""
    generator = torch.Generator().manual_seed(0)
    shapes = (width, size), (size,), (size, width), (width,)
    numel = sum(torch.Size(shape).numel() for shape in shapes)
    numbers = (torch.randn(num_trials, numel + 3, generator=generator) * 0.3).to(dtype).requires_grad_()
    parts, weights = numbers[:, 3:].split([torch.Size(shape).numel() for shape in shapes], dim=1), []
    for part, shape in zip(parts, shapes, strict=True):
        weights.append(part.unflatten(1, shape))
    hidden, read, upstream = (
        torch.randn(num_trials * rows, width, generator=generator).to(dtype).requires_grad_() for _ in range(3)
    )
    given: Weights = (weights[0], weights[1], weights[2], weights[3])
    out = add_bottleneck(hidden, hidden if reads_hidden else read, given, scale, activation)
    leaves = [hidden, numbers] if reads_hidden else [hidden, numbers, read]
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream.detach())]


def assert_near(ours: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for mine, other in zip(ours, expected, strict=True):
        assert mine.dtype is dtype
        if dtype is torch.float32:
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5)
        else:  # torch rounds some sums between that the kernels do not
            torch.testing.assert_close(mine, other, rtol=2**-6, atol=2**-5)


@pytest.mark.parametrize("activation", [F.gelu, TANH_GELU, F.relu], ids=["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("reads_hidden", [True, False])
@pytest.mark.thinned
def test_values_and_gradients_are_torch_s(reads_hidden: bool, activation: Activation, in_triton: InTriton) -> None:
    expected = with_gradients(3, 5, torch.float32, activation, scale=4.0, reads_hidden=reads_hidden)
    with in_triton():
        ours = with_gradients(3, 5, torch.float32, activation, scale=4.0, reads_hidden=reads_hidden)
    assert_near(ours, expected, torch.float32)


@pytest.mark.parametrize(("num_trials", "size"), [(1, 1), (2, 16), (1, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.thinned
def test_any_size_will_do(num_trials: int, size: int, dtype: torch.dtype, in_triton: InTriton) -> None:
    expected = with_gradients(num_trials, size, dtype, TANH_GELU)
    with in_triton():
        assert_near(with_gradients(num_trials, size, dtype, TANH_GELU), expected, dtype)


def test_a_large_one_and_one_of_another_activation_are_torch_s(in_triton: InTriton) -> None:
    for size, activation in ((bottleneck._LARGEST + 1, F.gelu), (4, torch.tanh)):
        expected = with_gradients(1, size, torch.float32, activation)
        with in_triton():
            ours = with_gradients(1, size, torch.float32, activation)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, expected, strict=True))


def test_dummy_rows_and_other_trials_change_no_bit(in_triton: InTriton) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 40, 5), (2, 5), (2, 5, 40), (2, 40)
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    hidden, upstream = (torch.randn(2 * 48, 40, generator=generator) for _ in range(2))
    upstream[48 + 21 :] = 0  # nothing comes from dummy rows

    def found(rows: slice, trials: slice) -> list[Tensor]:
        leaves = [hidden[rows].clone(), *(weight[trials].clone() for weight in weights)]
        for leaf in leaves:
            leaf.requires_grad_()
        x, *rest = leaves
        out = add_bottleneck(x, x, (rest[0], rest[1], rest[2], rest[3]), 1.0, F.gelu)
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream[rows])]

    with in_triton():
        together, alone = found(slice(0, 96), slice(0, 2)), found(slice(48, 48 + 21), slice(1, 2))
    for mine, other in zip(alone[:2], together[:2], strict=True):
        assert torch.equal(mine, other[48 : 48 + 21])
    for mine, other in zip(alone[2:], together[2:], strict=True):
        assert torch.equal(mine[0], other[1])
