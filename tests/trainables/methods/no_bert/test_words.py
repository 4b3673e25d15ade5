"""Hashed words: a function of the text alone, laid out word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.tokenized import TokenizedSplit
from trainables.methods.no_bert.words import FIRST, PIECE, SECOND, SHARED, WordRules, hash_piece, hash_splits, hash_word


def rules(**changes: Any) -> WordRules:
    values: dict[str, Any] = {"lowercase": True, "strip_punctuation": False, "longest_piece": 0, "max_words": 100}
    return WordRules(**{**values, **changes})


def hashed(rules: WordRules, *firsts: str, seconds: list[str] | None = None) -> TokenizedSplit:
    columns = {"text_a": pa.array(firsts, pa.string()), "label": pa.array([0] * len(firsts), pa.int64())}
    if seconds is not None:
        columns["text_b"] = pa.array(seconds, pa.string())
    return hash_splits({"train": pa.table(columns)}, rules)["train"]


def row(split: TokenizedSplit, index: int) -> list[tuple[int, int]]:
    """The (id, kind) pairs of one row."""
    own = slice(split.offsets[index], split.offsets[index + 1])
    return list(zip(split.input_ids[own].tolist(), split.token_type_ids[own].tolist(), strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["don", "'", "t", "stop", "_", "2", "day", "!"]),
        ({"lowercase": False, "strip_punctuation": True}, ["Don", "t", "STOP", "2", "day"]),
        ({"max_words": 3}, ["don", "'", "t"]),
    ],
)
def test_a_text_is_cut_by_its_rules(changes: dict[str, Any], words: list[str]) -> None:
    text = "Don't STOP _ 2 day!" if not changes.get("strip_punctuation") else "Don't STOP _2 day!"
    assert rules(**changes).words(text) == words


def test_a_text_without_words_has_one_empty_word() -> None:
    assert rules(strip_punctuation=True).words(" ?! ") == [""]
    assert len(hashed(rules(), "", "two words")) == 2


def test_a_word_is_followed_by_its_character_n_grams_with_its_ends_marked() -> None:
    pieces = ["<ab", "abc", "bc>", "<abc", "abc>"]
    assert rules(longest_piece=4).hashes("abc") == [hash_word("abc"), *map(hash_piece, pieces)]
    assert rules(longest_piece=6).hashes("a") == [hash_word("a")]  # "<a>" is the word itself
    assert rules(longest_piece=0).hashes("abc") == [hash_word("abc")]
    assert hash_word("abc") != hash_piece("abc")


def test_rows_hold_each_word_with_its_pieces_in_order() -> None:
    split = hashed(rules(longest_piece=3), "ab c", "ab")
    ab = [(hash_word("ab"), FIRST), (hash_piece("<ab"), PIECE), (hash_piece("ab>"), PIECE)]
    assert row(split, 0) == [*ab, (hash_word("c"), FIRST)]
    assert row(split, 1) == ab
    assert (split.input_ids.dtype, split.token_type_ids.dtype, split.offsets.dtype) == (np.int32, np.int8, np.int64)


def test_of_a_pair_it_is_told_which_text_says_a_word_and_whether_both_do() -> None:
    split = hashed(rules(), "big dog", seconds=["small dog"])
    assert row(split, 0) == [
        (hash_word("big"), FIRST),
        (hash_word("dog"), FIRST),
        (hash_word("small"), SECOND),
        (hash_word("dog"), SHARED),
    ]


def test_every_process_finds_the_same_hashes() -> None:
    assert (hash_word("über"), hash_piece("<ü")) == (1977549305, 1536440958)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.integers(0, 5), st.booleans())
def test_whatever_is_written_every_row_begins_with_a_word_and_depends_on_its_text_alone(
    texts: list[str], longest: int, strip: bool
) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    chosen = rules(longest_piece=longest if longest >= 3 else 0, strip_punctuation=strip)
    together = hashed(chosen, *texts)
    assert together.input_ids.min() >= 0
    for index, text in enumerate(texts):
        assert row(together, index)[0][1] == FIRST
        assert row(together, index) == row(hashed(chosen, text), 0)
