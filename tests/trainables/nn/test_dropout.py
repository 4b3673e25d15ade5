"""Dropout: the rate asked for, and masks that are a trial's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.nn import dropout as module
from trainables.nn.dropout import Dropout, DropoutStream, DropoutStreams, connect

CPU = torch.device("cpu")


def trials(*seeds: int, rate: float | None = None) -> list[DropoutStream]:
    return [DropoutStream(seed, rate, CPU) for seed in seeds]


def draw(
    streams: Sequence[DropoutStream],
    like: Tensor,
    rate: float,
    *,
    lengths: Sequence[int] | None = None,
    along: tuple[int, ...] = (),
) -> Tensor:
    """The mask of a whole batch."""
    pack = DropoutStreams(streams)
    pack.expect(like.shape[0], lengths)
    return pack.mask(like, rate, along=along)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_is_realised_within_chance(rate: float) -> None:
    count = 400_000
    mask = draw(trials(7), torch.ones(4, count // 4), rate)
    dropped = (mask == 0).double().mean().item()
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / count) + 2**-17


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(rate: float) -> None:
    mask = draw(trials(7), torch.ones(1, 10_001), rate)
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rate)).item()}


def test_neighbouring_elements_are_dropped_independently() -> None:
    mask = draw(trials(7), torch.ones(1, 400_000), 0.5)[0].double()
    for distance in (1, 2, 3, 4, 8):  # four elements share a draw
        together = torch.corrcoef(torch.stack([mask[:-distance], mask[distance:]]))[0, 1].item()
        assert abs(together) < 5 / math.sqrt(400_000)


def test_masks_do_not_depend_on_who_trains_beside() -> None:
    pack, alone = trials(1, 2, 3), trials(1, 2, 3)
    for width in (3, 8, 5):  # draw after draw, also where four elements do not fill a draw
        masks = draw(pack, torch.ones(3 * 2, width), 0.4)
        expected = torch.cat([draw([stream], torch.ones(2, width), 0.4) for stream in alone])
        assert torch.equal(masks, expected)


def test_each_trial_drops_at_its_own_rate_or_else_at_the_module_s() -> None:
    streams = [DropoutStream(seed, rate, CPU) for seed, rate in enumerate((0.5, None, 0.0))]
    mask = draw(streams, torch.ones(3, 40_000), 0.1)
    assert [set(row.unique().tolist()) for row in mask] == [{0.0, 2.0}, {0.0, torch.tensor(1 / 0.9).item()}, {1.0}]


def test_a_trial_without_dropout_draws_nothing() -> None:
    streams = [DropoutStream(1, 0.0, CPU), DropoutStream(2, 0.5, CPU)]
    before = [stream.get_state() for stream in streams]
    draw(streams, torch.ones(2, 100), 0.1)
    assert [str(stream.get_state()) == str(was) for stream, was in zip(streams, before, strict=True)] == [True, False]


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    per_trial=st.integers(1, 3),
    longer=st.integers(0, 3),
    attention=st.booleans(),
)
def test_padding_for_another_trial_s_sake_changes_no_mask(
    lengths: list[int], per_trial: int, longer: int, attention: bool
) -> None:
    longest, seeds, along = max(lengths) + longer, range(len(lengths)), (2, 3) if attention else (1,)

    def like(sequences: int, length: int) -> Tensor:
        return torch.ones(sequences, 2, length, length) if attention else torch.ones(sequences, length, 5)

    pack, alone = trials(*seeds), trials(*seeds)
    for _ in range(2):  # and so the streams stand alike afterwards
        mask = draw(pack, like(per_trial * len(lengths), longest), 0.4, lengths=lengths, along=along)
        for k, length in enumerate(lengths):
            mine = mask[k * per_trial : (k + 1) * per_trial]
            within = mine
            for dimension in along:
                within = within.narrow(dimension, 0, length)
            assert torch.equal(within, draw([alone[k]], like(per_trial, length), 0.4))
            assert (mine == 1).sum() == mine.numel() - within.numel()  # ones beyond, where nothing is dropped


@settings(deadline=None, max_examples=50)
@given(cuts=st.sets(st.integers(1, 5)), width=st.integers(1, 9))
def test_a_batch_may_be_filled_in_parts(cuts: set[int], width: int) -> None:
    whole = draw(trials(1, 2, 3), torch.ones(6, width), 0.4)
    pack = DropoutStreams(trials(1, 2, 3))
    pack.expect(6, None)
    bounds = [0, *sorted(cuts), 6]
    parts = [pack.mask(torch.ones(end - start, width), 0.4, along=(), first=start) for start, end in pairwise(bounds)]
    assert torch.equal(torch.cat(parts), whole)


def test_one_draw_is_not_the_next_and_a_stream_set_back_repeats_it() -> None:
    (stream,) = trials(1)
    like = torch.ones(1, 1001)
    state = stream.get_state()
    first = draw([stream], like, 0.5)
    assert not torch.equal(draw([stream], like, 0.5), first)
    stream.set_state(state)
    assert torch.equal(draw([stream], like, 0.5), first)


def test_a_mask_has_the_shape_and_dtype_of_what_it_masks() -> None:
    mask = draw(trials(1, 2), torch.ones(4, 3, 5, dtype=torch.bfloat16), 0.5)
    assert (mask.shape, mask.dtype, mask.requires_grad) == ((4, 3, 5), torch.bfloat16, False)


def test_a_rate_next_to_one_drops_nearly_all() -> None:
    mask = draw(trials(1), torch.ones(1, 100_000), 0.999_999)
    assert (mask == 0).double().mean() > 0.999


def test_bits_drawn_as_on_a_gpu_are_of_the_whole_range_and_can_be_drawn_again() -> None:
    source = module._DeviceBits(7, CPU)
    state = source.get_state()
    bits = source.draw(50_000)
    for part in range(4):  # of each 16 bits that decide an element
        values = bits.view(torch.int16).view(-1, 4)[:, part].double()
        assert abs(values.mean().item()) < 5 * 2**15 / math.sqrt(3 * 50_000)
        assert values.std().item() == pytest.approx(2**15 / math.sqrt(3), rel=0.02)
    source.set_state(state)
    assert torch.equal(source.draw(50_000), bits)


class TestModule:
    def test_it_is_off_in_evaluation_at_rate_0_and_without_streams(self) -> None:
        hidden = torch.randn(2, 50)
        drop = Dropout(0.5)
        assert drop(hidden) is hidden
        drop.streams = DropoutStreams(trials(0))
        drop.streams.expect(2, None)
        assert drop.eval()(hidden) is hidden
        assert not torch.equal(drop.train()(hidden), hidden)
        drop.rate = 0.0
        assert drop(hidden) is hidden

    def test_a_trial_s_own_rate_turns_it_on_and_off(self) -> None:
        for own, default, is_active in ((0.0, 0.5, False), (0.5, 0.0, True), (None, 0.5, True), (None, 0.0, False)):
            drop = Dropout(default)
            drop.streams = DropoutStreams([DropoutStream(0, own, CPU)])
            assert drop.is_active == is_active
        drop.streams = DropoutStreams([DropoutStream(0, 0.0, CPU), DropoutStream(1, 0.5, CPU)])
        assert drop.is_active  # for one of the two

    def test_gradients_pass_where_elements_pass(self) -> None:
        drop = Dropout(0.5)
        drop.streams = DropoutStreams(trials(0))
        drop.streams.expect(1, None)
        hidden = torch.ones(1, 100, requires_grad=True)
        output = drop(hidden)
        output.sum().backward()
        assert hidden.grad is not None
        assert torch.equal(hidden.grad, output.detach())
        assert 0 < (hidden.grad == 0).sum() < 100

    def test_connecting_reaches_every_dropout_and_disconnecting_too(self) -> None:
        model = torch.nn.Sequential(Dropout(0.1), torch.nn.Sequential(Dropout(0.2)))
        drops = [each for each in model.modules() if isinstance(each, Dropout)]
        streams = DropoutStreams(trials(0))
        connect(model, streams)
        assert all(drop.streams is streams and drop.is_active for drop in drops)
        connect(model, None)
        assert not any(drop.is_active for drop in drops)
        assert [drop.rate for drop in drops] == [0.1, 0.2]
