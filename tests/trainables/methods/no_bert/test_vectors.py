"""Static word vectors from text files of the three usual forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.faults import FaultsError
from trainables.methods.no_bert.vectors import StaticVectors, read_vectors, vector_width
from trainables.methods.no_bert.words import hash_word


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("header", [[], ["2 3"]], ids=["glove", "word2vec"])
def test_words_find_their_vectors_and_others_zeros(tmp_path: Path, header: list[str]) -> None:
    path = write(tmp_path / "vectors.txt", *header, "cat 1 2 3", "dog -1.5 0 2e-1")
    assert vector_width(path) == 3
    hashes = torch.tensor([hash_word(word) for word in ("dog", "cow", "cat", "dog")])
    found = StaticVectors(path, torch.device("cpu"))(hashes)
    torch.testing.assert_close(found, torch.tensor([[-1.5, 0, 0.2], [0, 0, 0], [1, 2, 3], [-1.5, 0, 0.2]]))


def test_lines_that_are_no_vector_are_left_out_and_the_first_of_equal_words_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "v.txt", "cat 1 2", "new york 3 4", "cat 5 6", "dog nan 1", "cow 7 8", "torn 9")
    hashes, vectors = read_vectors(path)
    assert dict(zip(hashes.tolist(), vectors.tolist(), strict=True)) == {
        hash_word("cat"): [1, 2],
        hash_word("cow"): [7, 8],
    }
    assert "3 lines" in caplog.text


def test_a_file_of_numbers_for_words_is_no_header(tmp_path: Path) -> None:
    assert vector_width(write(tmp_path / "v.txt", "1990 0.5")) == 1


@pytest.mark.parametrize("content", [[], ["a sentence of words"], ["2 300"]])
def test_what_is_no_file_of_vectors_is_refused(tmp_path: Path, content: list[str]) -> None:
    with pytest.raises(FaultsError, match="a word and its numbers"):
        vector_width(write(tmp_path / "v.txt", *content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match="must be a readable file"):
        vector_width(tmp_path / "none.txt")
