"""The order of rows: a function of lengths and seed, every row once an epoch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data import order

sizes = st.integers(1, 200)


class TestTrainingBatches:
    @settings(max_examples=60, deadline=None)
    @given(n=sizes, batch_size=st.integers(1, 40), num_epochs=st.integers(1, 6), seed=st.integers(0, 2**63 - 1))
    def test_every_epoch_meets_every_row_about_once(self, n: int, batch_size: int, num_epochs: int, seed: int) -> None:
        lengths = np.random.default_rng(0).integers(3, 60, size=n)
        batches = order.training_batches(lengths, batch_size=batch_size, num_epochs=num_epochs, seed=seed)
        assert len(batches) == max(1, int(n * num_epochs / batch_size))
        assert all(batch.shape == (batch_size,) and batch.min() >= 0 and batch.max() < n for batch in batches)
        counts = np.bincount(np.concatenate(batches), minlength=n)
        assert counts.max() - counts.min() <= 1  # whole permutations, the last one cut
        ends = order.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs)
        for start, end in zip([0, *ends], ends, strict=False):
            seen = np.bincount(np.concatenate(batches[start:end]), minlength=n) if end > start else np.zeros(n)
            if n >= 2 * batch_size:  # an epoch and its neighbours lend each other two batches at most
                assert (seen == 0).sum() <= 2 * batch_size
                assert np.maximum(seen - 1, 0).sum() <= 2 * batch_size

    @settings(max_examples=20, deadline=None)
    @given(n=sizes, seed=st.integers(0, 1000))
    def test_the_order_depends_on_the_seed_only(self, n: int, seed: int) -> None:
        lengths = np.random.default_rng(0).integers(3, 60, size=n)
        first = order.training_batches(lengths, batch_size=4, num_epochs=2, seed=seed)
        np.random.seed(1)  # the global generator must not matter
        again = order.training_batches(lengths, batch_size=4, num_epochs=2, seed=seed)
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))

    def test_another_seed_is_another_order(self) -> None:
        orders = [order.training_batches(np.full(50, 5), batch_size=5, num_epochs=1, seed=seed) for seed in (0, 1)]
        assert not np.array_equal(*orders)

    def test_rows_of_similar_length_share_a_batch(self) -> None:
        lengths = np.random.default_rng(0).integers(3, 128, size=2000)
        batches = order.training_batches(lengths, batch_size=32, num_epochs=2, seed=0)
        padded = sum(lengths[batch].max() * len(batch) for batch in batches)
        used = sum(lengths[batch].sum() for batch in batches)
        assert padded / used < 1.1  # in random order it would be about 1.9
        longest = [lengths[batch].max() for batch in batches]
        assert abs(np.corrcoef(longest, np.arange(len(batches)))[0, 1]) < 0.3  # and batches are not in order of length

    @settings(max_examples=40, deadline=None)
    @given(
        n=st.integers(200, 1200),
        batch_size=st.integers(2, 16),
        seeds=st.sets(st.integers(0, 2**63 - 1), min_size=2, max_size=2),
    )
    def test_two_seeds_meet_batches_of_similar_length_at_the_same_step(
        self, n: int, batch_size: int, seeds: set[int]
    ) -> None:
        lengths = np.random.default_rng(0).integers(3, 128, size=n)
        one, other = (
            np.array(
                [
                    lengths[batch].max()
                    for batch in order.training_batches(lengths, batch_size=batch_size, num_epochs=2, seed=seed)
                ]
            )
            for seed in seeds
        )
        assert np.corrcoef(one, other)[0, 1] > 0.75
        assert np.maximum(one, other).sum() < 1.2 * min(one.sum(), other.sum())  # what packing pads, at most

    def test_a_trial_any_number_of_windows_behind_meets_the_same_lengths(self) -> None:
        lengths = np.random.default_rng(0).integers(3, 128, size=16 * 32 * 4)
        early, late = (order.training_batches(lengths, batch_size=32, num_epochs=1, seed=seed) for seed in (0, 1))
        longest = [[lengths[batch].max() for batch in batches] for batches in (early, late)]
        for behind in range(0, 64, order.WINDOW):
            assert np.corrcoef(longest[0][behind:], longest[1][: 64 - behind])[0, 1] > 0.95
        assert np.corrcoef(longest[0][7:], longest[1][:57])[0, 1] < 0.5  # in the middle of one it would not

    @settings(max_examples=40, deadline=None)
    @given(n=st.integers(20, 600), batch_size=st.integers(1, 16), num_epochs=st.integers(1, 4))
    def test_windows_start_with_an_epoch_and_none_reaches_over_its_end(
        self, n: int, batch_size: int, num_epochs: int
    ) -> None:
        lengths = np.random.default_rng(0).permutation(n) + 3  # all different, so order shows
        batches = order.training_batches(lengths, batch_size=batch_size, num_epochs=num_epochs, seed=1)
        start = 0
        for end in order.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs):
            while start < end:
                size = order.WINDOW if end - start >= 1.5 * order.WINDOW else end - start
                assert 1 <= size < 1.5 * order.WINDOW
                window = sorted(batches[start : start + size], key=lambda batch: lengths[batch].min())
                for shorter, longer in pairwise(
                    window
                ):  # put in order, batches do not overlap, but for a row met twice
                    assert lengths[shorter].max() <= lengths[longer].min()
                start += size

    def test_steps_are_counted_as_adapter_bert_counts_them(self) -> None:
        assert order.num_steps(3668, batch_size=32, num_epochs=5) == 573  # PAPER: MRPC
        assert order.num_steps(3, batch_size=32, num_epochs=1) == 1

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 row"):
            order.training_batches(np.zeros(0, np.int64), batch_size=2, num_epochs=1, seed=0)


@given(n=sizes, batch_size=st.integers(1, 40), num_epochs=st.integers(1, 20))
def test_epochs_end_in_order_and_the_last_with_the_trial(n: int, batch_size: int, num_epochs: int) -> None:
    ends = order.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs)
    steps = order.num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    assert len(ends) == num_epochs
    assert ends[-1] == steps
    assert ends[0] >= 1
    if steps >= num_epochs:
        assert all(later > earlier for earlier, later in pairwise(ends))
        assert all(abs(end - steps * (e + 1) / num_epochs) <= 0.5 for e, end in enumerate(ends))
    else:
        assert ends == sorted(ends)


@given(lengths=st.lists(st.integers(1, 128), max_size=100), max_tokens=st.integers(1, 2000))
def test_an_evaluation_meets_every_row_once_within_its_budget(lengths: list[int], max_tokens: int) -> None:
    batches = order.evaluation_batches(np.array(lengths, np.int64), max_tokens=max_tokens)
    assert sorted(int(row) for batch in batches for row in batch) == list(range(len(lengths)))
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(len(batch) == 1 or len(batch) * top <= max_tokens for batch, top in zip(batches, longest, strict=True))
