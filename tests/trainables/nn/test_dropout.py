"""Dropout of a model: the rate asked for, and masks that are a trial's own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.pieces import laid_out
from trainables.nn.dropout import Dropout, StepKeys, number_sites
from trainables.nn.pieces import Pieces


def batch(rows: int, *, num_trials: int = 1) -> Pieces:
    """As many sequences of a word piece each as there are rows."""
    return laid_out(torch.full((rows, 1), 5), num_trials=num_trials)


def draw(
    pieces: Pieces,
    width: int,
    *own: float | None,
    seed: int = 7,
    step: int = 0,
    rate: float = 0.4,
    site: int = 0,
    is_fixed: bool = False,
) -> Tensor:
    """What is left of ones (N, width); trials have consecutive seeds."""
    rates = own or [None] * pieces.num_trials
    drop = Dropout(rate, is_fixed=is_fixed)
    drop.site = site
    drop.keys = StepKeys(range(seed, seed + len(rates)), [step] * len(rates), rates, pieces)
    return drop(torch.ones(pieces.num_rows, width))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_rate_is_realised_within_chance(rate: float) -> None:
    count = 400_000
    dropped = (draw(batch(400), count // 400, rate=rate) == 0).double().mean().item()
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / count) + 2**-17


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_what_is_kept_is_scaled_so_that_the_mean_stays(rate: float) -> None:
    values = draw(batch(1), 10_001, rate=rate).unique()
    assert values[0] == 0
    torch.testing.assert_close(values[1:], torch.tensor([1 / (1 - rate)]))


def test_neighbouring_elements_are_dropped_independently() -> None:
    mask = draw(batch(1), 400_000, rate=0.5)[0].double()
    for distance in (1, 2, 3, 4, 8):  # eight elements share a draw
        together = torch.corrcoef(torch.stack([mask[:-distance], mask[distance:]]))[0, 1].item()
        assert abs(together) < 5 / math.sqrt(400_000)


def test_a_mask_is_a_function_of_seed_step_and_site() -> None:
    pieces = batch(4)
    first = draw(pieces, 50)
    assert torch.equal(draw(pieces, 50), first)
    for other in (draw(pieces, 50, seed=8), draw(pieces, 50, step=1), draw(pieces, 50, site=1)):
        assert not torch.equal(other, first)
    rows = {tuple(row.tolist()) for row in first}
    assert len(rows) == 4  # no sequence has another's mask
    states = draw(laid_out(torch.full((1, 4), 5)), 50)
    assert len({tuple(row.tolist()) for row in states}) == 4  # nor a word piece its neighbour's


def test_global_random_numbers_are_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    first, before = draw(batch(4), 50), torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(batch(4), 50), first)


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=2), min_size=1, max_size=4),
    width=st.integers(1, 20),
)
def test_masks_do_not_depend_on_who_trains_beside(lengths: list[list[int]], width: int) -> None:
    """Mates are longer or shorter, so segments end in dummy rows, and rows stand elsewhere than alone."""

    def pieces(mine: list[list[int]]) -> Pieces:
        flat = torch.tensor(mine).flatten()
        return laid_out(torch.full((len(flat), int(flat.max())), 5), None, flat, num_trials=len(mine))

    together = draw(pieces(lengths), width).view(len(lengths), -1, width)
    for trial, mine in enumerate(lengths):
        alone = draw(pieces([mine]), width, seed=7 + trial)
        assert torch.equal(together[trial, : sum(mine)], alone)


def test_each_trial_drops_at_its_own_rate_or_else_at_the_site_s() -> None:
    mask = draw(batch(3, num_trials=3), 40_000, 0.5, None, 0.0, rate=0.1)
    kept = [set(row.unique().tolist()) for row in mask]
    assert kept == [{0.0, 2.0}, {0.0, mask[1].max().item()}, {1.0}]
    assert mask[1].max().item() == pytest.approx(1 / 0.9)


def test_a_rate_that_is_an_option_of_its_own_is_not_overridden() -> None:
    mask = draw(batch(2, num_trials=2), 40_000, 0.9, 0.0, rate=0.5, is_fixed=True)
    for row in mask:
        assert set(row.unique().tolist()) == {0.0, 2.0}


def test_sites_of_one_rate_share_what_they_look_up_whether_it_may_be_overridden_or_not() -> None:
    pieces = batch(1)
    keys = StepKeys([0], [0], [0.25], pieces)
    for default, is_fixed, expected in ((0.5, True, 0.5), (0.5, False, 0.25), (0.5, True, 0.5), (0.1, False, 0.25)):
        rates = keys.rates_K(default, is_fixed=is_fixed)
        assert rates is not None
        assert rates.tolist() == [expected]


def test_one_row_a_sequence_is_dropped_as_its_first_word_piece_is() -> None:
    pieces = laid_out(torch.full((4, 5), 5), None, torch.tensor([5, 2, 1, 4]), num_trials=2)
    drop = Dropout(0.4)
    drop.keys = StepKeys([1, 2], [3, 3], [None, 0.7], pieces)
    rows = drop(torch.ones(pieces.num_rows, 100))
    assert torch.equal(drop(torch.ones(4, 100)), rows[pieces.first_rows_S])


def test_a_mask_has_the_dtype_of_what_it_masks() -> None:
    drop = Dropout(0.5)
    drop.keys = StepKeys([1], [0], [None], batch(4))
    exact, rounded = (drop(torch.ones(4, 15, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded.float(), exact)


def test_a_rate_next_to_one_drops_nearly_all() -> None:
    assert (draw(batch(1), 100_000, rate=0.999_999) == 0).double().mean() > 0.999


class TestModule:
    def test_it_is_off_in_evaluation_at_rate_0_and_without_keys(self) -> None:
        hidden = torch.randn(2, 50)
        drop = Dropout(0.5)
        assert drop(hidden) is hidden
        drop.keys = StepKeys([0], [0], [None], batch(2))
        assert drop.eval()(hidden) is hidden
        assert not torch.equal(drop.train()(hidden), hidden)
        drop.rate = 0.0
        assert drop(hidden) is hidden

    def test_a_trial_s_own_rate_turns_it_on_and_off(self) -> None:
        for own, default, is_active in ((0.0, 0.5, False), (0.5, 0.0, True), (None, 0.5, True), (None, 0.0, False)):
            drop = Dropout(default)
            drop.keys = StepKeys([0], [0], [own], batch(1))
            assert (drop.rates_K is not None) == is_active
        drop.keys = StepKeys([0, 1], [0, 0], [0.0, 0.5], batch(2, num_trials=2))
        assert drop.rates_K is not None  # for one of the two

    def test_gradients_pass_where_elements_pass(self) -> None:
        drop = Dropout(0.5)
        drop.keys = StepKeys([0], [0], [None], batch(1))
        hidden = torch.ones(1, 100, requires_grad=True)
        output = drop(hidden)
        output.sum().backward()
        assert hidden.grad is not None
        assert torch.equal(hidden.grad, output.detach())
        assert 0 < (hidden.grad == 0).sum() < 100

    def test_sites_are_numbered_in_the_order_of_the_model(self) -> None:
        model = torch.nn.Sequential(Dropout(0.1), torch.nn.Sequential(Dropout(0.2), torch.nn.ReLU()), Dropout(0.3))
        sites = number_sites(model)
        assert [site.site for site in sites] == [0, 1, 2]
        assert [site.rate for site in sites] == [0.1, 0.2, 0.3]
