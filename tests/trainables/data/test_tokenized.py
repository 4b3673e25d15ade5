"""Tokenised rows: cached once, batched by length, padded right."""

from __future__ import annotations

import logging
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data import tokenized as data
from trainables.data.rows import Declared, make_task
from trainables.faults import FaultsError
from trainables.task import Task

WORDS = [f"w{number}" for number in range(30)]


@pytest.fixture(scope="module")
def tokenizer():
    """A whole-word tokenizer with BERT's special tokens; [PAD] is 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


def make(rows: int, pair: bool = False, seed: int = 0, label: type[pa.DataType] | None = None) -> Task:
    rng = np.random.default_rng(seed)

    def texts() -> list[str]:
        return [" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(rows)]

    def table() -> pa.Table:
        columns = {"text_a": texts(), **({"text_b": texts()} if pair else {})}
        labels = np.arange(rows) % 2 if label is None else rng.random(rows)
        return pa.table({**columns, "label": labels})

    return make_task(Declared(name="words", source="here"), {"train": table(), "validation": table()})


class TestTokenize:
    def test_rows_are_what_the_tokenizer_says(self, tokenizer, tmp_path: Path) -> None:
        task = make(20, pair=True)
        splits = data.tokenize(task, tokenizer, "words", 12, tmp_path)
        assert list(splits) == ["train", "validation"]
        for name, split in splits.items():
            rows = task.splits[name].to_pylist()
            assert len(split) == len(rows)
            assert split.labels.tolist() == [row["label"] for row in rows]
            for index, row in enumerate(rows):
                texts = row["text_a"], row["text_b"]
                expected = tokenizer(*texts, truncation=True, max_length=12, return_token_type_ids=True)
                here = slice(*split.offsets[index : index + 2])
                assert split.input_ids[here].tolist() == expected["input_ids"]
                assert split.token_type_ids[here].tolist() == expected["token_type_ids"]
            assert split.lengths.max() == 12
            assert (split.input_ids.dtype, split.token_type_ids.dtype) == (np.int32, np.int8)

    def test_the_second_time_the_cache_is_used(self, tokenizer, tmp_path, monkeypatch) -> None:
        task = make(10)
        first = data.tokenize(task, tokenizer, "words", 32, tmp_path)
        monkeypatch.setattr(data, "_tokenize_split", lambda *_: pytest.fail("tokenised again"))
        second = data.tokenize(task, tokenizer, "words", 32, tmp_path)
        for name in first:
            for field in ("offsets", "input_ids", "token_type_ids", "labels", "pad_token_id"):
                assert np.array_equal(getattr(first[name], field), getattr(second[name], field))

    def test_another_task_tokenizer_or_length_is_another_file(self, tmp_path: Path) -> None:
        keys = [("a", "t", 8), ("b", "t", 8), ("a", "u", 8), ("a", "t", 9)]
        assert len({data.cache_path(*key, tmp_path) for key in keys}) == len(keys)

    def test_the_cache_is_where_the_environment_says(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path / "here"))
        assert data.cache_path("a", "t", 8).is_relative_to(tmp_path / "here")
        monkeypatch.delenv("ADAPTUNE_CACHE")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert data.cache_path("a", "t", 8).is_relative_to(tmp_path / ".cache" / "adaptune")

    @pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "empty", "another file"])
    def test_a_damaged_cache_file_is_written_anew(self, tokenizer, tmp_path, caplog, damage: str) -> None:
        task = make(10)
        whole = data.tokenize(task, tokenizer, "words", 32, tmp_path)
        path = data.cache_path(task.fingerprint, "words", 32, tmp_path)
        content = path.read_bytes()
        ids = content.index(whole["train"].input_ids.tobytes())
        path.unlink()  # the mapped file lives on; overwriting it in place would change what is read from it
        path.write_bytes(
            {
                "cut short": content[: len(content) // 2],
                "a flipped bit": content[:ids] + bytes([content[ids] ^ 1]) + content[ids + 1 :],
                "empty": b"",
                "another file": b"no Arrow at all",
            }[damage]
        )
        with caplog.at_level(logging.WARNING):
            again = data.tokenize(task, tokenizer, "words", 32, tmp_path)
        assert "damaged" in caplog.text
        assert np.array_equal(again["train"].input_ids, whole["train"].input_ids)
        assert path.read_bytes() == content
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_a_cache_that_cannot_be_written_costs_time_only(self, tokenizer, tmp_path, caplog) -> None:
        (tmp_path / "file").write_text("in the way")
        with caplog.at_level(logging.WARNING):
            splits = data.tokenize(make(6), tokenizer, "words", 32, tmp_path / "file")
        assert "cannot keep" in caplog.text
        assert len(splits["train"]) == 6

    def test_threads_are_chosen_explicitly(self, tokenizer, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "x")  # so that it is put back afterwards
        monkeypatch.delenv("TOKENIZERS_PARALLELISM")
        data.tokenize(make(4), tokenizer, "words", 32, tmp_path)
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"

    def test_a_tokenizer_that_cannot_pad_is_refused(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
        with pytest.raises(FaultsError, match="padding token"):
            data.tokenize(make(4), words, "words", 32, tmp_path)


class TestPad:
    def test_padding_is_right_of_each_row_and_masked(self, tokenizer, tmp_path: Path) -> None:
        split = data.tokenize(make(30, pair=True), tokenizer, "words", 32, tmp_path)["train"]
        rows = np.array([7, 0, 29, 7])
        batch = data.pad(split, rows)
        assert batch.input_ids.shape == (4, split.lengths[rows].max())
        for place, row in enumerate(rows):
            length = split.lengths[row]
            here = slice(*split.offsets[row : row + 2])
            assert batch.input_ids[place, :length].tolist() == split.input_ids[here].tolist()
            assert batch.token_type_ids[place, :length].tolist() == split.token_type_ids[here].tolist()
            assert (batch.input_ids[place, length:] == tokenizer.pad_token_id).all()
            assert (batch.token_type_ids[place, length:] == 0).all()
            assert batch.lengths[place] == length
        assert batch.labels.tolist() == split.labels[rows].tolist()
        assert {array.dtype for array in vars(batch).values()} == {np.dtype(np.int64)}

    def test_the_padding_token_of_the_tokenizer_is_used(self) -> None:
        split = data.TokenizedSplit(
            offsets=np.array([0, 1, 4]),
            input_ids=np.array([5, 6, 7, 8], np.int32),
            token_type_ids=np.zeros(4, np.int8),
            labels=np.array([0.5, 1.5]),
            pad_token_id=9,
        )
        batch = data.pad(split, np.array([0, 1]), multiple_of=4)
        assert batch.input_ids.tolist() == [[5, 9, 9, 9], [6, 7, 8, 9]]
        assert batch.labels.dtype == np.float32


sizes = st.integers(1, 200)


class TestTrainingBatches:
    @settings(max_examples=60, deadline=None)
    @given(n=sizes, batch_size=st.integers(1, 40), num_epochs=st.integers(1, 6), seed=st.integers(0, 2**63 - 1))
    def test_every_epoch_meets_every_row_about_once(self, n: int, batch_size: int, num_epochs: int, seed: int) -> None:
        lengths = np.random.default_rng(0).integers(3, 60, size=n)
        batches = data.training_batches(lengths, batch_size=batch_size, num_epochs=num_epochs, seed=seed)
        assert len(batches) == max(1, int(n * num_epochs / batch_size))
        assert all(batch.shape == (batch_size,) and batch.min() >= 0 and batch.max() < n for batch in batches)
        counts = np.bincount(np.concatenate(batches), minlength=n)
        assert counts.max() - counts.min() <= 1  # whole permutations, the last one cut
        ends = data.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs)
        for start, end in zip([0, *ends], ends, strict=False):
            seen = np.bincount(np.concatenate(batches[start:end]), minlength=n) if end > start else np.zeros(n)
            if n >= 2 * batch_size:  # an epoch and its neighbours lend each other two batches at most
                assert (seen == 0).sum() <= 2 * batch_size
                assert np.maximum(seen - 1, 0).sum() <= 2 * batch_size

    @settings(max_examples=20, deadline=None)
    @given(n=sizes, seed=st.integers(0, 1000))
    def test_the_order_depends_on_the_seed_only(self, n: int, seed: int) -> None:
        lengths = np.random.default_rng(0).integers(3, 60, size=n)
        first = data.training_batches(lengths, batch_size=4, num_epochs=2, seed=seed)
        np.random.seed(1)  # the global generator must not matter
        again = data.training_batches(lengths, batch_size=4, num_epochs=2, seed=seed)
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))

    def test_another_seed_is_another_order(self) -> None:
        orders = [data.training_batches(np.full(50, 5), batch_size=5, num_epochs=1, seed=seed) for seed in (0, 1)]
        assert not np.array_equal(*orders)

    def test_rows_of_similar_length_share_a_batch(self) -> None:
        lengths = np.random.default_rng(0).integers(3, 128, size=2000)
        batches = data.training_batches(lengths, batch_size=32, num_epochs=2, seed=0)
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
                    for batch in data.training_batches(lengths, batch_size=batch_size, num_epochs=2, seed=seed)
                ]
            )
            for seed in seeds
        )
        assert np.corrcoef(one, other)[0, 1] > 0.75
        assert np.maximum(one, other).sum() < 1.2 * min(one.sum(), other.sum())  # what packing pads, at most

    def test_a_trial_any_number_of_windows_behind_meets_the_same_lengths(self) -> None:
        lengths = np.random.default_rng(0).integers(3, 128, size=16 * 32 * 4)
        early, late = (data.training_batches(lengths, batch_size=32, num_epochs=1, seed=seed) for seed in (0, 1))
        longest = [[lengths[batch].max() for batch in batches] for batches in (early, late)]
        for behind in range(0, 64, data.WINDOW):
            assert np.corrcoef(longest[0][behind:], longest[1][: 64 - behind])[0, 1] > 0.95
        assert np.corrcoef(longest[0][7:], longest[1][:57])[0, 1] < 0.5  # in the middle of one it would not

    @settings(max_examples=40, deadline=None)
    @given(n=st.integers(20, 600), batch_size=st.integers(1, 16), num_epochs=st.integers(1, 4))
    def test_windows_start_with_an_epoch_and_none_reaches_over_its_end(
        self, n: int, batch_size: int, num_epochs: int
    ) -> None:
        lengths = np.random.default_rng(0).permutation(n) + 3  # all different, so order shows
        batches = data.training_batches(lengths, batch_size=batch_size, num_epochs=num_epochs, seed=1)
        start = 0
        for end in data.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs):
            while start < end:
                size = data.WINDOW if end - start >= 1.5 * data.WINDOW else end - start
                assert 1 <= size < 1.5 * data.WINDOW
                window = sorted(batches[start : start + size], key=lambda batch: lengths[batch].min())
                for shorter, longer in pairwise(
                    window
                ):  # put in order, batches do not overlap, but for a row met twice
                    assert lengths[shorter].max() <= lengths[longer].min()
                start += size

    def test_steps_are_counted_as_adapter_bert_counts_them(self) -> None:
        assert data.num_steps(3668, batch_size=32, num_epochs=5) == 573  # PAPER: MRPC
        assert data.num_steps(3, batch_size=32, num_epochs=1) == 1

    def test_no_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 row"):
            data.training_batches(np.zeros(0, np.int64), batch_size=2, num_epochs=1, seed=0)


@given(n=sizes, batch_size=st.integers(1, 40), num_epochs=st.integers(1, 20))
def test_epochs_end_in_order_and_the_last_with_the_trial(n: int, batch_size: int, num_epochs: int) -> None:
    ends = data.epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs)
    steps = data.num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
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
    batches = data.evaluation_batches(np.array(lengths, np.int64), max_tokens=max_tokens)
    assert sorted(int(row) for batch in batches for row in batch) == list(range(len(lengths)))
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(len(batch) == 1 or len(batch) * top <= max_tokens for batch, top in zip(batches, longest, strict=True))
