"""Attention in blocks computes what a few plain lines compute, forwards and backwards, whatever the blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.nn import attention as module
from trainables.nn.attention import attend, attend_first
from trainables.nn.dropout import Dropout, DropoutStream, DropoutStreams

SEQUENCES, HEADS, LENGTH, WIDTH = 5, 2, 7, 12
SCORES = HEADS * LENGTH * LENGTH  # of one sequence
KEPT = torch.tensor([7, 3, 1, 7, 5])


class Given(Dropout):
    """Drops what it is told to, and sees that it is asked for each sequence once and in order."""

    def __init__(self, mask: Tensor | None, *, along: tuple[int, ...] = (2, 3)) -> None:
        super().__init__(0.1)
        self.given, self.next, self.along = mask, 0, along

    @property
    def is_active(self) -> bool:
        return self.given is not None

    def mask(self, like: Tensor, *, along: tuple[int, ...] = (1,), first: int = 0) -> Tensor:
        assert self.given is not None
        assert (along, first) == (self.along, self.next)
        self.next += len(like)
        return self.given[first : self.next].to(like.dtype)


def random_qkv(scale: float = 1.0) -> Tensor:
    return torch.randn(SEQUENCES, LENGTH, 3 * WIDTH, generator=torch.Generator().manual_seed(1)) * scale


def random_mask() -> Tensor:
    kept = torch.rand(SEQUENCES, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(2)) >= 0.3
    return kept / 0.7


def padding(dtype: torch.dtype = torch.float32) -> Tensor:
    padded = torch.arange(LENGTH) >= KEPT[:, None]
    return torch.zeros(SEQUENCES, LENGTH, dtype=dtype).masked_fill(padded, torch.finfo(dtype).min)[:, None, None]


def plain(qkv: Tensor, added: Tensor | None, mask: Tensor | None) -> Tensor:
    query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = query @ key.transpose(-1, -2) / (WIDTH / HEADS) ** 0.5
    probabilities = (scores if added is None else scores + added).softmax(dim=-1)
    return ((probabilities if mask is None else probabilities * mask) @ value).transpose(1, 2).flatten(2)


def with_gradient(output: Tensor, qkv: Tensor) -> tuple[Tensor, Tensor]:
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
    return output.detach(), torch.autograd.grad(output, qkv, upstream)[0]


@pytest.mark.parametrize("block_elements", [1, 2 * SCORES, 3 * SCORES + 1, 10**9])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("scale", [1.0, 60.0])  # at 60 no exponential of a score fits into float32
def test_values_and_gradients_are_those_of_plain_attention(
    block_elements: int, is_padded: bool, drops: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", block_elements)
    qkv = random_qkv(scale).requires_grad_()
    added, mask = padding() if is_padded else None, random_mask() if drops else None
    dropout = Given(mask)
    ours = with_gradient(attend(qkv, HEADS, added, dropout), qkv)
    assert dropout.next == (SEQUENCES if drops else 0)
    for mine, expected in zip(ours, with_gradient(plain(qkv, added, mask), qkv), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-6 * scale * scale)


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("drops", [False, True])
def test_the_first_token_alone_attends_to_what_it_attends_to_among_all(is_padded: bool, drops: bool) -> None:
    qkv = random_qkv().requires_grad_()
    added, mask = padding() if is_padded else None, random_mask()[:, :, :1] if drops else None
    query, key, value = qkv.chunk(3, dim=-1)
    ours = with_gradient(attend_first(query[:, 0], key, value, HEADS, added, Given(mask, along=(3,))), qkv)
    for mine, expected in zip(ours, with_gradient(plain(qkv, added, mask)[:, 0], qkv), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-6)


def test_padding_is_neither_seen_nor_changed() -> None:
    qkv = random_qkv().requires_grad_()
    output = attend(qkv, HEADS, padding(), Given(random_mask()))
    (grad,) = torch.autograd.grad(output[:, 0].sum(), qkv)
    padded = torch.arange(LENGTH) >= KEPT[:, None]
    assert not grad[padded].any()
    other = qkv.detach().clone()
    other[padded] = 50.0
    unseen = attend(other, HEADS, padding(), Given(random_mask()))
    torch.testing.assert_close(unseen[~padded], output[~padded], rtol=0, atol=1e-6)


@pytest.mark.parametrize("drops", [False, True])
def test_bf16_stays_near_float32(drops: bool) -> None:
    mask = random_mask() if drops else None
    exact = random_qkv().requires_grad_()
    rounded = exact.detach().bfloat16().requires_grad_()
    ours = with_gradient(attend(rounded, HEADS, padding(torch.bfloat16), Given(mask)), rounded)
    for mine, expected in zip(ours, with_gradient(plain(exact, padding(), mask), exact), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), expected, rtol=0.05, atol=0.05)


def test_blocks_change_no_mask_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for block_elements in (1, 2 * SCORES, 10**9):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", block_elements)
        dropout = Dropout(0.4)
        dropout.streams = DropoutStreams([DropoutStream(7, None, torch.device("cpu"))])
        dropout.streams.expect(SEQUENCES, None)
        outputs.append(attend(random_qkv(), HEADS, None, dropout))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=1e-6)
    assert not torch.allclose(outputs[0], attend(random_qkv(), HEADS, None, Dropout(0.4)))


class TestSoftmax:
    @settings(deadline=None)
    @given(rows=st.lists(st.lists(st.floats(-300, 300, width=32), min_size=3, max_size=3), min_size=1, max_size=6))
    def test_probabilities_are_the_library_s_and_sum_to_1(self, rows: list[list[float]]) -> None:
        scores = torch.tensor(rows)
        probabilities = module._softmax(scores.clone())
        torch.testing.assert_close(probabilities, scores.softmax(dim=-1), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(len(rows)))

    @pytest.mark.parametrize("extreme", [200.0, -200.0])
    def test_a_row_out_of_range_is_shifted_and_the_others_of_its_block_stay(self, extreme: float) -> None:
        scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
        scores[2] += extreme
        sums = scores.exp().sum(dim=-1)
        assert sums[2] in (0, float("inf"))  # so that without the shift there were no probabilities
        torch.testing.assert_close(module._softmax(scores.clone()), scores.softmax(dim=-1), rtol=1e-5, atol=0)

    def test_scores_in_bf16_become_probabilities_in_float32(self) -> None:
        probabilities = module._softmax(torch.randn(4, 5).bfloat16())
        assert probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(4))

    def test_a_number_that_is_none_is_not_hidden(self) -> None:
        assert module._softmax(torch.tensor([[0.0, float("nan")], [1.0, 2.0]]))[0].isnan().all()
