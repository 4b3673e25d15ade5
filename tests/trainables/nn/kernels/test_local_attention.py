"""Attention within a window is plain attention with what is farther away masked, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from trainables.nn.kernels.local_attention import attend_locally
from trainables.nn.kernels.philox import DropoutKeys, attention_mask

HEADS, WIDTH, SITE = 2, 12, 6
LENGTHS = [[3, 20, 1], [9, 9, 2], [70, 1, 17]]
RATES = [0.1, 0.0, 0.5]


def plain(qkv: Tensor, batch: Batch, keys: DropoutKeys | None, window: int) -> Tensor:
    """Sequence by sequence, with a row for each pair."""
    out = torch.zeros(len(qkv), WIDTH)
    per_trial = batch.lengths_KB.shape[1]
    for s, (start, length) in enumerate(zip(batch.starts_S.tolist(), batch.lengths_KB.ravel().tolist(), strict=True)):
        parts = qkv[start : start + length].chunk(3, dim=1)
        query, key, value = (part.unflatten(1, (HEADS, -1)).transpose(0, 1) for part in parts)
        places = torch.arange(length)
        is_far = (places[:, None] - places).abs() > window
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        probabilities = scores.masked_fill(is_far, float("-inf")).softmax(dim=-1)
        if keys is not None:
            trial, place = torch.tensor([s // per_trial]), torch.tensor([s % per_trial], dtype=torch.int32)
            probabilities = probabilities * attention_mask(keys, trial, place, HEADS, length, SITE, qkv.dtype)[0]
        attended = (probabilities @ value).transpose(0, 1).flatten(1)
        out = out.index_copy(0, torch.arange(start, start + length), attended)
    return out


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("window", [1, 4, 8, 11, 64, 100])
def test_values_and_gradients_are_those_of_masked_attention(drops: bool, window: int) -> None:
    batch = lay_out(LENGTHS, RATES)
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(batch.num_rows, 3 * WIDTH, generator=generator).requires_grad_()
    upstream = torch.randn(batch.num_rows, WIDTH, generator=generator)
    keys = batch.keys if drops else None
    ours, expected = (
        (output.detach(), *torch.autograd.grad(output, qkv, upstream))
        for output in (attend_locally(qkv, HEADS, window, batch.sequences, keys, SITE), plain(qkv, batch, keys, window))
    )
    for mine, theirs in zip(ours, expected, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
        assert not mine[batch.is_dummy_N].any()


def test_a_row_s_result_does_not_depend_on_who_is_beside_it() -> None:
    batch, alone = lay_out(LENGTHS, RATES), lay_out(LENGTHS[2:], RATES[2:])
    qkv = torch.randn(batch.num_rows, 3 * WIDTH, generator=torch.Generator().manual_seed(1))
    mine = qkv[batch.rows(2)]
    together = attend_locally(qkv, HEADS, 4, batch.sequences, None, SITE)[batch.rows(2)]
    torch.testing.assert_close(attend_locally(mine, HEADS, 4, alone.sequences, None, SITE), together, rtol=0, atol=1e-6)
