"""Masks drawn inside kernels are those of the torch reference to the bit, which are Philox 4x32-10 as in NumPy."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from tests.trainables.nn.kernels.test_philox import plain_row_mask
from trainables.nn.kernels.philox import DropoutKeys, attention_mask, row_mask
from trainables.nn.kernels.triton.philox import attention_factors, row_factors


@triton.jit
def write_rows(out, positions, places, seed, step, rate, site, first, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    factors = row_factors(
        tl.load(positions + rows),
        tl.load(places + rows),
        site,
        tl.load(step),
        tl.load(seed),
        tl.load(rate),
        first,
        ROWS,
        WIDTH,
    )
    tl.store(out + rows[:, None] * WIDTH + columns[None, :], factors)


@triton.jit
def write_attention(
    out, first_query, first_key, head, place, seed, step, rate, site, ROWS: tl.constexpr, KEYS: tl.constexpr
):
    rows = tl.arange(0, ROWS)
    factors = attention_factors(
        first_query + rows,
        first_key,
        head,
        place,
        site,
        tl.load(step),
        tl.load(seed),
        tl.load(rate),
        ROWS,
        KEYS,
    )
    tl.store(out + rows[:, None] * KEYS + tl.arange(0, KEYS)[None, :], factors)


def drawn_rows(keys: DropoutKeys, trial: int, rows: slice, site: int, first: int, width: int) -> Tensor:
    places, positions = keys.places_N[rows].contiguous(), keys.positions_N[rows].contiguous()
    out = torch.full((len(places), width), torch.nan)
    of_trial = keys.seeds_K[trial:], keys.steps_K[trial:], keys.rates_K[trial:]
    write_rows[(1,)](out, positions, places, *of_trial, site, first, ROWS=len(places), WIDTH=width)
    return out


@pytest.fixture(name="batch")
def batch_fixture() -> Batch:
    """Three trials of eight rows, one of which has a seed below 0."""
    batch = lay_out([[3, 5], [7, 1], [2, 4]], [0.1, 0.0, 0.73], spare_rows=0)
    seeds = torch.tensor([-0x1234_5678_9ABC_DEF1, 3, 2**62])
    return dataclasses.replace(batch, keys=dataclasses.replace(batch.keys, seeds_K=seeds))


def test_masks_of_rows_are_the_reference_s_to_the_bit(batch: Batch) -> None:
    site = 9
    expected = row_mask(batch.keys, 64, site, batch.keys.rates_K)
    for k in range(3):
        assert torch.equal(drawn_rows(batch.keys, k, batch.rows(k), site, 0, 32), expected[batch.rows(k), :32])
        assert torch.equal(drawn_rows(batch.keys, k, batch.rows(k), site, 40, 16), expected[batch.rows(k), 40:56])


def test_masks_of_rows_are_those_of_numpy() -> None:
    batch = lay_out([[3, 5], [7, 1]], [0.1, 0.73], spare_rows=0)
    expected = torch.from_numpy(plain_row_mask(batch, 16, site=3))
    for k in range(2):
        assert torch.equal(drawn_rows(batch.keys, k, batch.rows(k), 3, 0, 16), expected[batch.rows(k)])


def test_masks_of_attention_are_the_reference_s_to_the_bit(batch: Batch) -> None:
    site, head, place = 5, 2, 1
    for k in range(3):
        expected = attention_mask(
            batch.keys, torch.tensor([k]), torch.tensor([place], dtype=torch.int32), 3, 40, site, torch.float32
        )
        out = torch.full((8, 16), torch.nan)
        of_trial = batch.keys.seeds_K[k:], batch.keys.steps_K[k:], batch.keys.rates_K[k:]
        write_attention[(1,)](out, 24, 16, head, place, *of_trial, site, ROWS=8, KEYS=16)
        assert torch.equal(out, expected[0, head, 24:32, 16:32])


@pytest.mark.parametrize("rate", [0.0, 0.5 / 2**16, 1.5 / 2**16, 2.5 / 2**16, 0.1, 0.5, 0.999, 1 - 2**-17, 1 - 2**-24])
def test_rates_are_rounded_as_in_the_reference(batch: Batch, rate: float) -> None:
    keys = dataclasses.replace(batch.keys, rates_K=torch.tensor([rate] * 3))
    expected = row_mask(keys, 512, 1, keys.rates_K)[batch.rows(1)]
    assert torch.equal(drawn_rows(keys, 1, batch.rows(1), 1, 0, 512), expected)
