"""Masks are those of Philox 4x32-10 as written down a second time here, in NumPy and one draw after the other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.nn.kernels.conftest import Batch, InTorch, lay_out
from trainables.nn.kernels.philox import DropoutKeys, attention_mask, dropout, philox, row_mask


def plain_philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """One draw, in Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k[0], high % 2**32, (low >> 32) ^ c[3] ^ k[1], low % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def plain_factor(keys: DropoutKeys, trial: int, counter: tuple[int, int, int], element: int) -> np.float32:
    """What an element is multiplied by, where `counter` lacks the step."""
    seed, step = int(keys.seeds_K[trial]), int(keys.steps_K[trial]) % 2**32
    word = plain_philox((*counter, step), (seed % 2**32, seed >> 32))[element % 8 // 2]
    number = word >> 16 if element % 2 else word % 2**16
    rate = np.float32(keys.rates_K[trial].item())
    is_kept = number >= min(round(float(rate) * 2**16), 2**16 - 1)
    return np.float32(1) / (np.float32(1) - rate) if is_kept else np.float32(0)


def plain_row_mask(batch: Batch, width: int, site: int) -> np.ndarray:
    keys, per_trial = batch.keys, batch.num_rows // len(batch.lengths_KB)
    mask = np.empty((batch.num_rows, width), dtype=np.float32)
    for n, e in np.ndindex(mask.shape):
        counter = e // 8, int(keys.positions_N[n]), int(keys.places_N[n]) | site << 16
        mask[n, e] = plain_factor(keys, n // per_trial, counter, e)
    return mask


class TestPhilox:
    # The vectors for philox4x32-10 that its authors publish: counter, key, output.
    @pytest.mark.parametrize(
        ("counter", "key", "expected"),
        [
            ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
            ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
            (
                (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
                (0xA4093822, 0x299F31D0),
                (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
            ),
        ],
    )
    def test_known_answers(self, counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
        assert tuple(plain_philox(counter, key)) == expected
        seed = (key[1] << 32 | key[0]) - (2**64 if key[1] >= 2**31 else 0)
        words = philox(tuple(torch.tensor([word]) for word in counter), torch.tensor([seed]))
        assert tuple(int(word) for word in words) == expected

    @given(
        counter=st.tuples(*[st.integers(0, 2**32 - 1)] * 4),
        seed=st.integers(-(2**63), 2**63 - 1),
    )
    def test_any_draw_is_the_plain_one(self, counter: tuple[int, ...], seed: int) -> None:
        words = philox(tuple(torch.tensor([word]) for word in counter), torch.tensor([seed]))
        assert [int(word) for word in words] == plain_philox(counter, (seed % 2**32, seed % 2**64 >> 32))


class TestDropout:
    @pytest.mark.parametrize("width", [8, 13, 64, 70])
    def test_masks_are_the_plain_ones_to_the_bit(self, path: str, width: int) -> None:
        batch = lay_out([[3, 5], [4, 1], [2, 2]], [0.1, 0.0, 0.73])
        expected = torch.from_numpy(plain_row_mask(batch, width, site=9))
        ones = torch.ones(batch.num_rows, width)
        assert torch.equal(dropout(ones, batch.keys, 9), expected)
        assert torch.equal(dropout(ones.bfloat16(), batch.keys, 9), expected.bfloat16())

    def test_the_gradient_is_dropped_where_the_row_is(self, path: str) -> None:
        batch = lay_out([[5, 3]], [0.4])
        x = torch.randn(batch.num_rows, 24, requires_grad=True)
        (grad,) = torch.autograd.grad(dropout(x, batch.keys, 2), x, torch.ones_like(x))
        assert torch.equal(grad, row_mask(batch.keys, 24, 2, batch.keys.rates_K))

    def test_other_rates_may_stand_for_the_keys_own(self, path: str) -> None:
        batch, x = lay_out([[5, 3], [4, 4]], [0.4, 0.2]), torch.ones(20, 24)
        replaced = dataclasses.replace(batch.keys, rates_K=torch.tensor([0.0, 0.5]))
        assert torch.equal(dropout(x, batch.keys, 2, replaced.rates_K), dropout(x, replaced, 2))

    def test_first_rows_alone_have_the_masks_they_have_among_all(self, path: str) -> None:
        batch = lay_out([[5, 3], [4, 1]], [0.4, 0.2])
        among_all = dropout(torch.ones(batch.num_rows, 24), batch.keys, 2)[batch.starts_S]
        assert torch.equal(dropout(torch.ones(4, 24), batch.first_keys, 2), among_all)

    def test_masks_differ_between_trials_steps_sites_places_and_positions(self, path: str) -> None:
        batch = lay_out([[6, 6], [6, 6]], [0.5, 0.5])
        x = torch.ones(batch.num_rows, 64)
        later = dataclasses.replace(batch.keys, steps_K=batch.keys.steps_K + 1)
        masks = torch.cat([dropout(x, keys, site) for keys, site in [(batch.keys, 1), (batch.keys, 2), (later, 1)]])
        real = ~batch.is_dummy_N.repeat(3)
        assert len(masks[real].unique(dim=0)) == 3 * 24

    def test_elements_are_kept_as_often_as_they_should_be(self, path: str) -> None:
        batch = lay_out([[500]], [0.1])
        mask = dropout(torch.ones(batch.num_rows, 384), batch.keys, 4)
        share = float((mask > 0).float().mean())
        assert abs(share - 0.9) < 5 * (0.09 / mask.numel()) ** 0.5

    @settings(deadline=None, max_examples=40)
    @given(data=st.data())
    def test_c_and_torch_give_the_same_bits(self, data: st.DataObject, in_torch: InTorch) -> None:
        batch = draw_batch(data)
        width = data.draw(st.integers(1, 150))
        dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
        x = torch.randn(batch.num_rows, width, generator=torch.Generator().manual_seed(0)).to(dtype)
        ours = dropout(x, batch.keys, 17)
        with in_torch():
            assert torch.equal(ours, dropout(x, batch.keys, 17))

    def test_what_is_not_a_number_stays_so_even_where_it_is_dropped(self, path: str) -> None:
        batch = lay_out([[4]], [0.5])
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.full((batch.num_rows, 64), float("nan"), dtype=dtype)
            assert dropout(x, batch.keys, 0).isnan().all()


class TestAttentionMask:
    def test_masks_are_the_plain_ones_to_the_bit(self) -> None:
        batch = lay_out([[1, 1], [1, 1]], [0.3, 0.0])
        trials, places = torch.tensor([1, 0, 0]), torch.tensor([1, 0, 1], dtype=torch.int32)
        mask = attention_mask(batch.keys, trials, places, 2, 11, 5, torch.float32)
        assert mask.shape == (3, 2, 11, 11)
        for s, h, i, j in np.ndindex(*mask.shape):
            counter = j // 8 | h << 16, i, int(places[s]) | 5 << 16
            assert mask[s, h, i, j].item() == plain_factor(batch.keys, int(trials[s]), counter, j)

    def test_neither_padding_nor_company_changes_a_mask(self) -> None:
        batch = lay_out([[1, 1, 1]], [0.3])
        trials, places = torch.zeros(3, dtype=torch.int64), torch.arange(3, dtype=torch.int32)
        long = attention_mask(batch.keys, trials, places, 3, 24, 5, torch.bfloat16)
        short = attention_mask(batch.keys, trials[1:2], places[1:2], 3, 10, 5, torch.bfloat16)
        assert long.dtype == torch.bfloat16
        assert torch.equal(long[1:2, :, :10, :10], short)
        first = attention_mask(batch.keys, trials, places, 3, 24, 5, torch.bfloat16, queries=1)
        assert torch.equal(first, long[:, :, :1])


def draw_batch(data: st.DataObject) -> Batch:
    """Some trials' sequences, of one row at least, with rates of which some are 0."""
    num_trials, per_trial = data.draw(st.sampled_from([1, 2, 5])), data.draw(st.integers(1, 4))
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=num_trials * per_trial, max_size=num_trials * per_trial))
    rate = st.sampled_from([0.0, 0.1, 0.5, 0.999])
    rates = data.draw(st.lists(rate, min_size=num_trials, max_size=num_trials))
    return lay_out(
        np.reshape(lengths, (num_trials, per_trial)).tolist(), rates, spare_rows=data.draw(st.integers(0, 3))
    )
