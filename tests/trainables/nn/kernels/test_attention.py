"""Attention over rows is plain attention of each sequence, forwards and backwards, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, InTorch, lay_out
from trainables.nn.kernels.attention import attend, attend_first
from trainables.nn.kernels.philox import DropoutKeys, attention_mask
from trainables.nn.kernels.sequences import MAX_GROUPS, Sequences

HEADS, WIDTH, SITE = 2, 12, 6
LENGTHS = [[3, 20, 1], [9, 9, 2], [70, 1, 17]]
RATES = [0.1, 0.0, 0.5]


def random_rows(batch: Batch, scale: float = 1.0, *, width: int = WIDTH) -> Tensor:
    return torch.randn(batch.num_rows, 3 * width, generator=torch.Generator().manual_seed(1)) * scale


def plain(qkv: Tensor, batch: Batch, keys: DropoutKeys | None, *, heads: int = HEADS) -> Tensor:
    """Sequence by sequence, in a few lines."""
    out = []
    per_trial = batch.lengths_KB.shape[1]
    lengths_S = batch.lengths_KB.ravel().tolist()
    rows = [slice(start, start + length) for start, length in zip(batch.starts_S.tolist(), lengths_S, strict=True)]
    for s, mine in enumerate(rows):
        query, key, value = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in qkv[mine].chunk(3, dim=1))
        probabilities = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(dim=-1)
        if keys is not None:
            trial, place = torch.tensor([s // per_trial]), torch.tensor([s % per_trial], dtype=torch.int32)
            probabilities = probabilities * attention_mask(keys, trial, place, heads, lengths_S[s], SITE, qkv.dtype)[0]
        out.append((probabilities @ value).transpose(0, 1).flatten(1))
    gathered = torch.cat([torch.arange(mine.start, mine.stop) for mine in rows])
    return torch.zeros(len(qkv), qkv.shape[1] // 3).index_copy(0, gathered, torch.cat(out))


def with_gradient(output: Tensor, *tensors: Tensor) -> list[Tensor]:
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, upstream)]


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("scale", [1.0, 20.0])  # at 20 exponentials of scores leave the range of float32
@pytest.mark.parametrize(("heads", "width"), [(2, 12), (3, 96), (1, 20)])
def test_values_and_gradients_are_those_of_plain_attention(
    path: str, drops: bool, scale: float, heads: int, width: int
) -> None:
    batch = lay_out(LENGTHS, RATES)
    qkv = random_rows(batch, scale, width=width).requires_grad_()
    keys = batch.keys if drops else None
    ours = with_gradient(attend(qkv, heads, batch.sequences, keys, SITE), qkv)
    for mine, expected in zip(ours, with_gradient(plain(qkv, batch, keys, heads=heads), qkv), strict=True):
        assert expected.abs().max() > 0.1
        # Scores of hundreds are exact to their seventh digit, and so probabilities to their fourth.
        torch.testing.assert_close(mine, expected, rtol=1e-4 * scale, atol=3e-6 * scale * scale)
        assert not mine[batch.is_dummy_N].any()


@pytest.mark.parametrize("drops", [False, True])
def test_the_first_token_alone_attends_to_what_it_attends_to_among_all(path: str, drops: bool) -> None:
    batch = lay_out(LENGTHS, RATES)
    keys = batch.keys if drops else None
    qkv = random_rows(batch).requires_grad_()
    query, key_value = qkv[batch.starts_S, :WIDTH], qkv[:, WIDTH:]
    key, value = key_value.split(WIDTH, dim=1)
    ours = with_gradient(attend_first(query, key, value, HEADS, batch.sequences, keys, SITE), qkv)
    for mine, expected in zip(ours, with_gradient(plain(qkv, batch, keys)[batch.starts_S], qkv), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize(
    "width", [WIDTH, 64 * HEADS]
)  # heads of whole vectors have products of bf16 where CPUs have them
def test_bf16_stays_near_float32(path: str, width: int, drops: bool) -> None:
    batch = lay_out(LENGTHS, RATES)
    keys = batch.keys if drops else None
    exact = random_rows(batch, width=width).bfloat16().float().requires_grad_()
    rounded = exact.detach().bfloat16().requires_grad_()
    ours = with_gradient(attend(rounded, HEADS, batch.sequences, keys, SITE), rounded)
    for mine, expected in zip(ours, with_gradient(plain(exact, batch, keys), exact), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("width", [WIDTH, 32 * HEADS])
def test_what_is_not_a_number_stays_in_its_sequence(path: str, width: int) -> None:
    batch = lay_out(LENGTHS, RATES)
    for dtype in (torch.float32, torch.bfloat16):
        qkv = random_rows(batch, width=width).to(dtype)
        start = int(batch.starts_S[1])
        qkv[start, 0] = float("nan")
        qkv.requires_grad_()
        output = attend(qkv, HEADS, batch.sequences, batch.keys, SITE)
        (grad,) = torch.autograd.grad(output, qkv, torch.ones_like(output))
        outside = torch.ones(batch.num_rows, dtype=torch.bool)
        outside[start : start + LENGTHS[0][1]] = False
        for mine in (output, grad):
            assert mine[start].isnan().any()
            assert mine[outside].isfinite().all()


def test_a_trial_s_rows_do_not_depend_on_its_mates(path: str) -> None:
    packed, alone = lay_out([LENGTHS[0], [8, 8, 8]], RATES[:2]), lay_out(LENGTHS[:1], RATES[:1])
    qkv = random_rows(packed)
    mine = packed.rows(0)
    together = attend(qkv, HEADS, packed.sequences, packed.keys, SITE)[mine]
    by_itself = attend(qkv[mine], HEADS, alone.sequences, alone.keys, SITE)
    torch.testing.assert_close(together, by_itself, rtol=1e-6, atol=1e-7)


def test_a_sequence_without_rows_gives_zeros(path: str) -> None:
    batch = lay_out([[4, 0, 3], [0, 0, 2]], [0.1, 0.1])
    qkv = random_rows(batch).requires_grad_()
    for mine, expected in zip(
        with_gradient(attend(qkv, HEADS, batch.sequences, batch.keys, SITE), qkv),
        with_gradient(plain(qkv, batch, batch.keys), qkv),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-6)
    query = torch.randn(6, WIDTH, requires_grad=True)
    key, value = qkv.detach()[:, WIDTH:].chunk(2, dim=1)
    output = attend_first(query, key, value, HEADS, batch.sequences, batch.keys, SITE)
    (grad,) = torch.autograd.grad(output.sum(), query)
    is_empty = torch.from_numpy(batch.lengths_KB.ravel() == 0)
    assert not output[is_empty].any()
    assert not grad[is_empty].any()
    assert output[~is_empty].abs().min() > 0


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_c_and_torch_agree(data: st.DataObject, in_torch: InTorch) -> None:
    num_trials, per_trial = data.draw(st.sampled_from([1, 5])), data.draw(st.integers(1, 3))
    sizes = st.lists(st.integers(0, 90), min_size=per_trial, max_size=per_trial)
    lengths = data.draw(st.lists(sizes, min_size=num_trials, max_size=num_trials))
    rates = data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=num_trials, max_size=num_trials))
    batch = lay_out(lengths, rates)
    heads, head_width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40) | st.sampled_from([32, 64]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    keys = batch.keys if data.draw(st.booleans()) else None
    qkv = random_rows(batch, width=heads * head_width).to(dtype).requires_grad_()
    ours = with_gradient(attend(qkv, heads, batch.sequences, keys, SITE), qkv)
    with in_torch():
        expected = with_gradient(attend(qkv, heads, batch.sequences, keys, SITE), qkv)
    # In bf16 torch also rounds scores, which C keeps in float32.
    tolerance = 1e-5 if dtype is torch.float32 else 0.04
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(
            mine, other, rtol=tolerance, atol=tolerance * max(1.0, float(other.detach().abs().max()))
        )


class TestSequences:
    @given(lengths=st.lists(st.integers(0, 512), min_size=1, max_size=80))
    def test_every_sequence_is_in_one_group_that_holds_it(self, lengths: list[int]) -> None:
        starts = np.cumsum(lengths) - lengths
        total = sum(lengths)
        sequences = Sequences(starts, np.array(lengths), num_trials=1, num_rows=total, device=torch.device("cpu"))
        assert len(sequences.groups) <= MAX_GROUPS
        members = torch.cat([group.sequences_G for group in sequences.groups] or [torch.zeros(0, dtype=torch.int64)])
        assert sorted(members.tolist()) == [index for index, length in enumerate(lengths) if length]
        covered = []
        for group in sequences.groups:
            assert group.length % 8 == 0
            longest = max(lengths[index] for index in group.sequences_G)
            assert longest <= group.length < longest + 8
            covered += group.targets_GL[~group.padding_GL].tolist()
            assert (group.targets_GL[group.padding_GL] == total).all()
        assert sorted(covered) == list(range(total))

    def test_outliers_do_not_pad_the_others(self) -> None:
        lengths = np.array([10] * 60 + [200] * 2)
        starts = np.cumsum(lengths) - lengths
        rows = int(lengths.sum())
        sequences = Sequences(starts, lengths, num_trials=2, num_rows=rows, device=torch.device("cpu"))
        assert [(group.length, len(group.sequences_G)) for group in sequences.groups] == [(16, 60), (200, 2)]
