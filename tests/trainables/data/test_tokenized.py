"""Tokenised rows: cached once, and whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

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
            for field in ("offsets", "input_ids", "token_type_ids", "labels"):
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

    def test_a_tokenizer_without_a_padding_token_will_do(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
        assert words.pad_token is None
        assert len(data.tokenize(make(4), words, "words", 32, tmp_path)["train"]) == 4


class TestTextsWithoutWordPieces:
    """Texts of which a tokenizer makes nothing, one way or the other."""

    @pytest.fixture
    def bare(self):
        """A tokenizer that adds no tokens of its own and knows none for unknown words."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[NONE]"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=words)

    def rows(self, *texts: str) -> pa.Table:
        return pa.table({"text_a": list(texts), "label": np.zeros(len(texts), np.int64)})

    def test_a_row_without_any_is_refused_by_its_number(self, bare) -> None:
        assert data.encode(self.rows("w1 w2", "w3"), bare, 8).lengths.tolist() == [2, 1]
        with pytest.raises(FaultsError, match="2 of these rows give none, such as row 2, 3"):
            data.encode(self.rows("w1", "", "  "), bare, 8)

    def test_special_tokens_are_enough(self, tokenizer) -> None:
        assert data.encode(self.rows("w1", ""), tokenizer, 8).lengths.tolist() == [3, 2]

    def test_a_word_that_the_tokenizer_has_nothing_for_is_a_fault_and_no_traceback(self, bare) -> None:
        with pytest.raises(FaultsError, match="must make word pieces of every text, but cannot: "):
            data.encode(self.rows("w1", "unheard"), bare, 8)
