"""Texts as hashed words and character n-grams: tokenisation that is a function of the text alone.

There is no vocabulary, so nothing has to be fitted, kept or shipped: a word is a 31-bit hash of its letters, followed
by the hashes of its character n-grams as in fastText (Bojanowski et al. 2017), so that a word that was never seen
still has parts that were. What reads the ids takes them modulo the size of its tables.

A row is flat: each word of the first text and its n-grams, then each word of the second. `token_type_ids` say what an
id is: a word of the first text, of the second alone, of the second and the first, or a piece of the word before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa

from trainables.data.tokenized import TokenizedSplit
from trainables.predictions import label_values
from trainables.task import Task

# Kinds of ids. Of a pair, that both texts say a word is most of what a model of single words can know.
FIRST, SECOND, SHARED, PIECE = 0, 1, 2, 3
NUM_WORD_KINDS = 3
HASH_BITS = 31  # ids stay non-negative int32
SHORTEST_PIECE = 3

_WORDS = re.compile(r"[^\W_]+")
_WORDS_AND_MARKS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class WordRules:
    """How a text is cut into words and pieces.

    `longest_piece` is the most letters of a character n-gram, the marks of a word's begin and end counted, and the
    fewest are 3; 0 for none. `max_words` are the words kept of each text.
    """

    lowercase: bool
    strip_punctuation: bool  # keep letters and digits only; else every other sign is a word
    longest_piece: int
    max_words: int

    def words(self, text: str) -> list[str]:
        """The words of a text; one empty word where it has none, so that every text has something to read."""
        pattern = _WORDS if self.strip_punctuation else _WORDS_AND_MARKS
        found = pattern.findall(text.lower() if self.lowercase else text)
        return found[: self.max_words] or [""]

    def hashes(self, word: str) -> list[int]:
        """The hash of a word, and after it those of its character n-grams, shorter ones first."""
        marked = f"<{word}>"
        pieces = [
            marked[start : start + length]
            for length in range(SHORTEST_PIECE, min(self.longest_piece, len(marked) - 1) + 1)
            for start in range(len(marked) - length + 1)
        ]
        return [hash_word(word), *(hash_piece(piece) for piece in pieces)]


def hash_word(word: str) -> int:
    """Of a whole word, in [0, 2^31); the same on every machine."""
    return _hash(f"w{word}")


def hash_piece(piece: str) -> int:
    """Of a character n-gram, in [0, 2^31), apart from the word of the same letters."""
    return _hash(f"p{piece}")


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> (32 - HASH_BITS)


def hash_task(task: Task, rules: WordRules) -> dict[str, TokenizedSplit]:
    """Every split of a task in hashed words. The latest are kept: a search asks for the same ones again and again."""
    return _hash_request(_Request(task.fingerprint, rules, task))


@dataclass(frozen=True)
class _Request:
    fingerprint: str
    rules: WordRules
    task: Task = field(compare=False)


@lru_cache(maxsize=4)
def _hash_request(request: _Request) -> dict[str, TokenizedSplit]:
    return hash_splits(request.task.splits, request.rules)


def hash_splits(tables: Mapping[str, pa.Table], rules: WordRules) -> dict[str, TokenizedSplit]:
    """Every split in hashed words; tables with the columns of a task's splits."""
    known = _KnownWords(rules)
    return {name: _hash_split(table, known) for name, table in tables.items()}


class _KnownWords:
    """Each distinct word numbered and hashed once."""

    def __init__(self, rules: WordRules) -> None:
        self.rules = rules
        self._numbers: dict[str, int] = {}
        self._hashes: list[int] = []
        self._counts: list[int] = []

    def number(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self._numbers))
        if number == len(self._counts):
            hashes = self.rules.hashes(word)
            self._hashes += hashes
            self._counts.append(len(hashes))
        return number

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The hashes of all words one after the other, int32, and how many each has."""
        return np.array(self._hashes, np.int32), np.array(self._counts, np.int64)


def _hash_split(table: pa.Table, known: _KnownWords) -> TokenizedSplit:
    numbers: list[int] = []
    kinds: list[int] = []
    words_per_row = np.empty(table.num_rows, np.int64)
    firsts = table.column("text_a").to_pylist()
    seconds = table.column("text_b").to_pylist() if "text_b" in table.schema.names else [None] * len(firsts)
    for row, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        words = known.rules.words(first)
        before = len(numbers)
        numbers += map(known.number, words)
        kinds += [FIRST] * len(words)
        if second is not None:
            said = set(words)
            words = known.rules.words(second)
            numbers += map(known.number, words)
            kinds += [SHARED if word in said else SECOND for word in words]
        words_per_row[row] = len(numbers) - before
    return _lay_out(np.array(numbers, np.int64), kinds, words_per_row, known, table)


def _lay_out(
    numbers: np.ndarray, kinds: Sequence[int], words_per_row: np.ndarray, known: _KnownWords, table: pa.Table
) -> TokenizedSplit:
    """Put each word's hashes where the word stands."""
    hashes, counts = known.arrays()
    ids_per_word = counts[numbers]
    starts = np.cumsum(ids_per_word) - ids_per_word  # of each word's ids in the result
    source = np.repeat((np.cumsum(counts) - counts)[numbers] - starts, ids_per_word)
    types = np.full(int(ids_per_word.sum()), PIECE, np.int8)
    types[starts] = kinds
    row_bounds = np.concatenate([[0], np.cumsum(words_per_row)])
    return TokenizedSplit(
        offsets=np.append(starts, len(types))[row_bounds].astype(np.int64),
        input_ids=hashes[source + np.arange(len(source))],
        token_type_ids=types,
        labels=label_values(table.column("label").combine_chunks()),
    )
