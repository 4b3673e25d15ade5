"""Frozen embeddings in Triton, from look-up to dropout, are those of torch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.trainables.nn.kernels.triton.conftest import InTriton
from tests.trainables.training.packable import SHAPE
from trainables.nn.dropout import StepKeys
from trainables.nn.kernels.triton import embedding
from trainables.nn.layers import Embeddings
from trainables.nn.pieces import Pieces, lay, pieces_of
from trainables.training.device_data import multiple_of_8


def make_pieces() -> Pieces:
    """Two trials of two sequences, whose tokens are of types 0 and 1."""
    lengths = np.array([3, 5, 4, 1])
    rng = np.random.default_rng(0)
    laid = lay(np.arange(4), lengths, 2, round_up=multiple_of_8)
    ids, types = rng.integers(0, SHAPE.vocab_size, 13), rng.integers(0, 2, 13)
    return pieces_of(laid, ids, types, torch.device("cpu"))


def make_embeddings(num_types: int, offset: int, width: int, dtype: torch.dtype) -> Embeddings:
    shape = dataclasses.replace(
        SHAPE, type_vocab_size=num_types, position_offset=offset, embedding_size=width, hidden_size=width
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embeddings = Embeddings(shape)
        for parameter in embeddings.layernorm.parameters():
            parameter.data.normal_()
    return embeddings.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_types", "offset", "width"), [(2, 0, 16), (1, 2, 40), (0, 0, 16)])
@pytest.mark.parametrize("rates", [None, (0.1, 0.5)])
def test_hidden_states_are_those_of_torch(
    num_types: int,
    offset: int,
    width: int,
    dtype: torch.dtype,
    rates: tuple[float, ...] | None,
    in_triton: InTriton,
) -> None:
    embeddings, pieces = make_embeddings(num_types, offset, width, dtype), make_pieces()
    if rates is not None:
        embeddings.dropout.keys = StepKeys([3, 4], [5, 6], rates, pieces)
    expected = embeddings(pieces, dtype)
    with in_triton():
        ours = embeddings(pieces, dtype)
    assert ours.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 2**-7
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(ours == 0, expected == 0)


def test_trained_ones_are_torch_s(in_triton: InTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(embedding, "embed")
    embeddings, pieces = make_embeddings(2, 0, 16, torch.float32), make_pieces()
    embeddings.layernorm.weight.requires_grad_()
    with in_triton():
        assert embeddings(pieces, torch.float32).requires_grad
