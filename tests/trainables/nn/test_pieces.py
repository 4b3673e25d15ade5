"""Word pieces laid end to end: every one once, in its place, and dummy rows that belong to nobody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.nn.pieces import Laid, Pieces, lay, pieces_of
from trainables.training.device_data import multiple_of_8

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Example:
    """A batch, and the sequences it was made of."""

    sequences: list[np.ndarray]  # ids of each
    types: list[np.ndarray]
    laid: Laid
    pieces: Pieces


@st.composite
def examples(draw: st.DrawFn) -> Example:
    num_trials, per_trial = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = num_trials * per_trial
    lengths = np.array(draw(st.lists(st.integers(1, 9), min_size=size, max_size=size)))
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    ids = [rng.integers(1, 1000, length) for length in lengths]  # never 0, as dummy rows are
    types = [rng.integers(0, 2, length) for length in lengths]
    laid = lay(rng.integers(0, 50, size), lengths, num_trials, round_up=draw(st.sampled_from([None, multiple_of_8])))
    return Example(ids, types, laid, pieces_of(laid, np.concatenate(ids), np.concatenate(types), CPU))


@settings(deadline=None)
@given(example=examples())
def test_every_word_piece_of_every_sequence_stands_once_in_its_place(example: Example) -> None:
    pieces, laid = example.pieces, example.laid
    assert pieces.num_sequences == len(example.sequences)
    is_taken = np.zeros(pieces.num_rows, bool)
    for sequence, (ids, types, start) in enumerate(zip(example.sequences, example.types, laid.starts_S, strict=True)):
        here = slice(start, start + len(ids))
        assert not is_taken[here].any()
        is_taken[here] = True
        assert pieces.input_ids_N[here].tolist() == ids.tolist()
        assert pieces.token_types_N[here].tolist() == types.tolist()
        assert pieces.positions_N[here].tolist() == list(range(len(ids)))
        assert pieces.owners_N[here].tolist() == [sequence] * len(ids)
        assert pieces.first_rows_S[sequence] == start
    assert pieces.num_dummies == (~is_taken).sum()
    assert (pieces.owners_N[torch.from_numpy(~is_taken)] == pieces.num_sequences).all()
    if pieces.is_piece_KM is None:
        assert is_taken.all()
    else:
        assert pieces.is_piece_KM.flatten().tolist() == is_taken.tolist()


@settings(deadline=None)
@given(example=examples())
def test_each_trial_has_a_segment_of_its_own_with_dummy_rows_last(example: Example) -> None:
    laid = example.laid
    lengths_KB = laid.lengths_S.reshape(laid.num_trials, -1)
    needed = lengths_KB.sum(axis=1)
    assert needed.max() <= laid.rows_per_trial < needed.max() + 8
    assert laid.num_rows == laid.num_trials * laid.rows_per_trial == example.pieces.num_rows
    owners_KM = laid.owners_N.reshape(laid.num_trials, -1)
    per_trial = lengths_KB.shape[1]
    for trial, (owners, length) in enumerate(zip(owners_KM, needed, strict=True)):
        assert (owners[:length] // per_trial == trial).all()
        assert (owners[length:] == len(laid.rows_S)).all()
        filled = laid.filled[trial]
        assert filled.start == trial * laid.rows_per_trial
        assert length <= filled.stop - filled.start <= min(length + 7, laid.rows_per_trial)
    assert example.pieces.filled == laid.filled


def test_a_segment_is_as_long_as_the_longest_trial_needs_and_a_multiple_of_what_is_asked() -> None:
    rows, lengths = np.arange(4), np.array([3, 2, 4, 6])
    assert lay(rows, lengths, 2).rows_per_trial == 10
    assert lay(rows, lengths, 2, round_up=multiple_of_8).rows_per_trial == 16
    assert lay(rows, lengths, 2).starts_S.tolist() == [0, 3, 10, 14]
    assert lay(rows, lengths, 1).rows_per_trial == 15


@settings(deadline=None)
@given(example=examples(), width=st.integers(1, 3))
def test_padding_and_unpadding_are_inverse(example: Example, width: int) -> None:
    pieces = example.pieces
    rows = torch.randn(pieces.num_rows, width, generator=torch.Generator().manual_seed(0))
    padded = pieces.pad(rows, -7.0)
    lengths = example.laid.lengths_S
    assert padded.shape == (len(lengths), lengths.max(), width)
    for sequence, (start, length) in enumerate(zip(example.laid.starts_S, lengths, strict=True)):
        assert torch.equal(padded[sequence, :length], rows[start : start + length])
        assert (padded[sequence, length:] == -7).all()
    is_piece = (pieces.owners_N < pieces.num_sequences)[:, None]
    assert torch.equal(pieces.unpad(padded), rows * is_piece)


@settings(deadline=None)
@given(example=examples())
def test_a_mean_is_that_of_a_sequence_s_word_pieces(example: Example) -> None:
    pieces = example.pieces
    rows = torch.randn(pieces.num_rows, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    means = pieces.mean(rows)
    means.sum().backward()
    for sequence, (start, length) in enumerate(zip(example.laid.starts_S, example.laid.lengths_S, strict=True)):
        here = slice(start, start + length)
        torch.testing.assert_close(means[sequence], rows[here].mean(dim=0))
        assert rows.grad is not None
        torch.testing.assert_close(rows.grad[here], torch.full((int(length), 3), 1 / length))
    assert rows.grad is not None
    assert not rows.grad[pieces.owners_N == pieces.num_sequences].any()


def test_a_mean_of_bf16_is_summed_in_float32() -> None:
    laid = lay(np.arange(1), np.array([4096]), 1)
    pieces = pieces_of(laid, np.ones(4096, int), np.zeros(4096, int), CPU)
    mean = pieces.mean(torch.full((4096, 1), 1.0078125, dtype=torch.bfloat16))
    assert mean.dtype == torch.bfloat16
    assert mean.item() == 1.0078125


@pytest.mark.parametrize("num_trials", [1, 2])
def test_dummy_rows_pass_no_gradient_to_and_from_padding(num_trials: int) -> None:
    laid = lay(np.arange(4), np.array([3, 2, 1, 1]), num_trials)
    pieces = pieces_of(laid, np.ones(7, int), np.zeros(7, int), CPU)
    rows = torch.randn(pieces.num_rows, 2, requires_grad=True)
    pieces.pad(rows).square().sum().backward()
    assert rows.grad is not None
    is_dummy = pieces.owners_N == 4
    assert is_dummy.sum() == (0 if num_trials == 1 else 3)
    assert not rows.grad[is_dummy].any()
    assert rows.grad[~is_dummy].any(dim=1).all()
