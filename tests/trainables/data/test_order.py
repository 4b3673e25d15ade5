"""The order of rows: a function of their number and the seed, every row about once an epoch."""

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
        batches = order.training_batches(n, batch_size=batch_size, num_epochs=num_epochs, seed=seed)
        assert len(batches) == max(1, int(n * num_epochs / batch_size))
        assert all(batch.shape == (batch_size,) and batch.min() >= 0 and batch.max() < n for batch in batches)
        stream = np.concatenate(batches)
        for start in range(0, len(stream), n):  # one permutation after the other, the last one cut
            assert len(set(stream[start : start + n].tolist())) == len(stream[start : start + n])
        ends = order.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs)
        for start, end in zip([0, *ends], ends, strict=False):
            seen = np.bincount(np.concatenate(batches[start:end]), minlength=n) if end > start else np.zeros(n)
            if n >= 2 * batch_size:  # an epoch and its neighbours lend each other two batches at most
                assert (seen == 0).sum() <= 2 * batch_size
                assert np.maximum(seen - 1, 0).sum() <= 2 * batch_size

    @settings(max_examples=20, deadline=None)
    @given(n=sizes, seed=st.integers(0, 1000))
    def test_the_order_depends_on_the_seed_only(self, n: int, seed: int) -> None:
        first = order.training_batches(n, batch_size=4, num_epochs=2, seed=seed)
        np.random.seed(1)  # the global generator must not matter
        again = order.training_batches(n, batch_size=4, num_epochs=2, seed=seed)
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))

    @settings(max_examples=20, deadline=None)
    @given(n=st.integers(2, 200), seed=st.integers(0, 1000), num_epochs=st.integers(1, 4))
    def test_the_stream_of_rows_knows_neither_batch_size_nor_epochs(self, n: int, seed: int, num_epochs: int) -> None:
        short = np.concatenate(order.training_batches(n, batch_size=1, num_epochs=num_epochs, seed=seed))
        long = np.concatenate(order.training_batches(n, batch_size=2, num_epochs=num_epochs + 1, seed=seed))
        assert np.array_equal(short, long[: len(short)])

    def test_another_seed_is_another_order(self) -> None:
        orders = [order.training_batches(50, batch_size=5, num_epochs=1, seed=seed) for seed in (0, 1)]
        assert not np.array_equal(*orders)

    def test_rows_are_mixed_anew_each_epoch(self) -> None:
        stream = np.concatenate(order.training_batches(2000, batch_size=20, num_epochs=2, seed=0))
        first, second = stream[:2000], stream[2000:]
        for rows in (first, second):
            assert abs(np.corrcoef(rows, np.arange(2000))[0, 1]) < 0.1
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.1

    def test_steps_are_counted_as_adapter_bert_counts_them(self) -> None:
        assert order.num_steps(3668, batch_size=32, num_epochs=5) == 573  # PAPER: MRPC
        assert order.num_steps(3, batch_size=32, num_epochs=1) == 1

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 row"):
            order.training_batches(0, batch_size=2, num_epochs=1, seed=0)


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
    inside = [[lengths[row] for row in batch] for batch in batches]
    assert [length for batch in inside for length in batch] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or sum(batch) <= max_tokens for batch in inside)
    for batch, following in pairwise(inside):  # and no batch is smaller than it need be
        assert sum(batch) + following[0] > max_tokens
