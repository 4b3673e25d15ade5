"""Dropout: the rate asked for, and masks that are a trial's own."""

from __future__ import annotations

import math

import pytest
import torch

from trainables.dropout import Dropout, DropoutStreams, connect

CPU = torch.device("cpu")


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_is_realised_within_chance(rate: float) -> None:
    count = 400_000
    mask = DropoutStreams([7], CPU).mask(torch.ones(4, count // 4), rate)
    dropped = (mask == 0).double().mean().item()
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / count) + 2**-17


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(rate: float) -> None:
    mask = DropoutStreams([7], CPU).mask(torch.ones(1, 10_001), rate)
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rate)).item()}


def test_neighbouring_elements_are_dropped_independently() -> None:
    mask = DropoutStreams([7], CPU).mask(torch.ones(1, 400_000), 0.5)[0].double()
    for distance in (1, 2, 3, 4, 8):  # four elements share a draw
        together = torch.corrcoef(torch.stack([mask[:-distance], mask[distance:]]))[0, 1].item()
        assert abs(together) < 5 / math.sqrt(400_000)


def test_masks_do_not_depend_on_who_trains_beside() -> None:
    pack = DropoutStreams([1, 2, 3], CPU)
    alone = [DropoutStreams([seed], CPU) for seed in (1, 2, 3)]
    for width in (3, 8, 5):  # draw after draw, also where four elements do not fill a draw
        masks = pack.mask(torch.ones(3 * 2, width), 0.4)
        expected = torch.cat([streams.mask(torch.ones(2, width), 0.4) for streams in alone])
        assert torch.equal(masks, expected)


def test_one_draw_is_not_the_next() -> None:
    streams = DropoutStreams([1], CPU)
    like = torch.ones(1, 1000)
    assert not torch.equal(streams.mask(like, 0.5), streams.mask(like, 0.5))


def test_a_mask_has_the_shape_and_dtype_of_what_it_masks() -> None:
    mask = DropoutStreams([1, 2], CPU).mask(torch.ones(4, 3, 5, dtype=torch.bfloat16), 0.5)
    assert (mask.shape, mask.dtype) == ((4, 3, 5), torch.bfloat16)


def test_a_rate_next_to_one_drops_nearly_all() -> None:
    mask = DropoutStreams([1], CPU).mask(torch.ones(1, 100_000), 0.999_999)
    assert (mask == 0).double().mean() > 0.999


class TestModule:
    def test_it_is_off_in_evaluation_at_rate_0_and_without_streams(self) -> None:
        hidden = torch.randn(2, 50)
        drop = Dropout(0.5)
        assert drop(hidden) is hidden
        drop.streams = DropoutStreams([0], CPU)
        assert drop.eval()(hidden) is hidden
        assert not torch.equal(drop.train()(hidden), hidden)
        drop.rate = 0.0
        assert drop(hidden) is hidden

    def test_gradients_pass_where_elements_pass(self) -> None:
        drop = Dropout(0.5)
        drop.streams = DropoutStreams([0], CPU)
        hidden = torch.ones(1, 100, requires_grad=True)
        output = drop(hidden)
        output.sum().backward()
        assert hidden.grad is not None
        assert torch.equal(hidden.grad, output.detach())
        assert 0 < (hidden.grad == 0).sum() < 100

    def test_connecting_sets_the_rate_only_where_one_is_given(self) -> None:
        model = torch.nn.Sequential(Dropout(0.1), torch.nn.Sequential(Dropout(0.2)))
        drops = [module for module in model.modules() if isinstance(module, Dropout)]
        streams = DropoutStreams([0], CPU)
        connect(model, streams, None)
        assert [drop.rate for drop in drops] == [0.1, 0.2]
        connect(model, streams, 0.0)
        assert [drop.rate for drop in drops] == [0.0, 0.0]
        assert all(drop.streams is streams for drop in drops)
