"""On a GPU: bottlenecks, means and embeddings in Triton against those in torch, on the same card."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainables.training.packable import SHAPE
from trainables.nn.dropout import StepKeys
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.kernels import triton
from trainables.nn.kernels.bottleneck import add_bottleneck
from trainables.nn.layers import Embeddings
from trainables.nn.pieces import Pieces, lay, pieces_of
from trainables.training.device_data import multiple_of_8

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")
DTYPES = [torch.float32, torch.bfloat16]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
Compute = Callable[[], list[Tensor]]
Both = Callable[[Compute], list[tuple[Tensor, Tensor]]]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """What Triton computes beside what torch does."""

    def compute(function: Compute) -> list[tuple[Tensor, Tensor]]:
        monkeypatch.delenv("ADAPTUNE_TRITON", raising=False)
        assert triton.serves(torch.zeros(1, device=DEVICE))
        ours = function()
        monkeypatch.setenv("ADAPTUNE_TRITON", "0")
        return list(zip(ours, function(), strict=True))

    return compute


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def assert_near(pairs: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    tolerance = 2e-2 if dtype is torch.bfloat16 else 2e-5
    for mine, expected in pairs:
        assert mine.dtype is expected.dtype
        scale = max(1.0, expected.float().abs().max().item())
        torch.testing.assert_close(mine.float(), expected.float(), rtol=tolerance, atol=tolerance * scale)


def make_pieces() -> Pieces:
    lengths = np.array([3, 20, 1, 9, 64, 17])
    rng = np.random.default_rng(0)
    laid = lay(np.arange(6), lengths, 3, round_up=multiple_of_8)
    return pieces_of(laid, rng.integers(0, 40, lengths.sum()), rng.integers(0, 2, lengths.sum()), DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(("num_trials", "rows", "width", "size"), [(3, 77, 384, 8), (1, 32, 768, 64), (2, 50, 40, 100)])
def test_bottlenecks(
    both: Both, dtype: torch.dtype, activation: str, num_trials: int, rows: int, width: int, size: int
) -> None:
    shapes = (num_trials, width, size), (num_trials, size), (num_trials, size, width), (num_trials, width)
    down, down_bias, up, up_bias = (random(*shape, seed=n) * 0.1 for n, shape in enumerate(shapes))
    weights = [weight.to(dtype).requires_grad_() for weight in (down, down_bias, up, up_bias)]
    hidden, upstream = (random(num_trials * rows, width, seed=n, dtype=dtype) for n in (8, 9))
    hidden.requires_grad_()

    def compute() -> list[Tensor]:
        given = weights[0], weights[1], weights[2], weights[3]
        out = add_bottleneck(hidden, hidden, given, 2.0, ACTIVATIONS[activation])
        return [out.detach(), *torch.autograd.grad(out, [hidden, *weights], upstream)]

    assert_near(both(compute), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [384, 40])
def test_means(both: Both, dtype: torch.dtype, width: int) -> None:
    pieces = make_pieces()
    hidden, upstream = random(pieces.num_rows, width, seed=1, dtype=dtype), random(6, width, seed=2, dtype=dtype)
    hidden.requires_grad_()

    def compute() -> list[Tensor]:
        pooled = pieces.mean(hidden)
        return [pooled.detach(), *torch.autograd.grad(pooled, hidden, upstream)]

    assert_near(both(compute), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_types", [0, 1, 2])
def test_embeddings(both: Both, dtype: torch.dtype, num_types: int) -> None:
    sizes = {"vocab_size": 40, "max_positions": 80, "type_vocab_size": num_types, "position_offset": 2}
    widths = {"hidden_size": 384, "embedding_size": 384, "num_heads": 12, "intermediate_size": 8, "num_layers": 1}
    embeddings = Embeddings(EncoderShape(model_type=SHAPE.model_type, **sizes, **widths)).requires_grad_(False)
    for n, parameter in enumerate(embeddings.parameters()):
        parameter.copy_(random(*parameter.shape, seed=n).cpu())
    embeddings, pieces = embeddings.to(DEVICE, dtype), make_pieces()
    embeddings.dropout.keys = StepKeys([3, 4, 5], [6, 7, 8], (0.1, 0.0, 0.5), pieces)
    assert_near(both(lambda: [embeddings(pieces, dtype)]), dtype)
