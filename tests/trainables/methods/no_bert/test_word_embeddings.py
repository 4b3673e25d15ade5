"""Words of a batch, their n-grams and their vectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.pieces import laid_out
from trainables.methods.no_bert import word_embeddings
from trainables.methods.no_bert.word_embeddings import WordEmbeddings, Words, sum_by_row, trained_table
from trainables.methods.no_bert.words import FIRST, PIECE, SECOND, SHARED

CPU = torch.device("cpu")
# Two rows: words 5 (pieces 6, 7), 8 | a pair: 9 | 9 (said by both), 3, 4 (piece 2).
IDS = torch.tensor([[5, 6, 7, 8, 0], [9, 9, 3, 4, 2]])
TYPES = torch.tensor([[FIRST, PIECE, PIECE, FIRST, FIRST], [FIRST, SHARED, SECOND, SECOND, PIECE]])
LENGTHS = torch.tensor([4, 5])


def generators(num_trials: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(num_trials)]


def words(num_trials: int = 1) -> Words:
    """The two rows, for each trial."""
    repeated = IDS.repeat(num_trials, 1), TYPES.repeat(num_trials, 1), LENGTHS.repeat(num_trials)
    return Words.of(laid_out(*repeated, num_trials=num_trials))


def random(*size: int, seed: int = 7) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_words_are_found_in_a_batch() -> None:
    found = words()
    assert found.hashes.tolist() == [5, 8, 9, 9, 3, 4]
    assert found.rows.tolist() == [0, 0, 1, 1, 1, 1]
    assert found.starts.tolist() == [0, 3, 4, 5, 6, 7]
    assert found.counts.tolist() == [2, 4]
    assert found.ids[[0, 1, 2, 3, 4, 8]].tolist() == [5, 6, 7, 8, 9, 2]  # the first text's, and pieces, as they are
    assert len({found.ids[4].item(), found.ids[5].item(), 9}) == 2  # the same word in the second text is another


def test_dummy_rows_hold_no_words() -> None:
    """Two trials of a row each, of 4 and of 5 ids, so that the first one's segment ends in a dummy row."""
    pieces = laid_out(IDS, TYPES, LENGTHS, num_trials=2)
    assert pieces.num_dummies == 1
    found, expected = Words.of(pieces), words()
    for name in ("ids", "starts", "kinds", "rows", "hashes", "counts"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_word_n_grams_stay_within_a_text() -> None:
    hashes, rows = words().ngrams(3)
    # 2 + 4 single words, (5 8), (9* 3), (3 4), and one of three; the lone word of the pair's first text has no partner.
    assert rows.tolist() == [0, 0, 1, 1, 1, 1, 0, 1, 1, 1]
    assert len(set(hashes.tolist())) == len(hashes)
    again, _ = Words.of(laid_out(torch.tensor([[5, 8]]), torch.tensor([[FIRST, FIRST]]))).ngrams(2)
    assert again[2] == hashes[6]  # a function of its words alone
    turned, _ = Words.of(laid_out(torch.tensor([[8, 5]]), torch.tensor([[FIRST, FIRST]]))).ngrams(2)
    assert turned[2] != again[2]  # and of their order


def test_a_word_is_the_mean_of_its_buckets_and_what_its_kind_adds() -> None:
    table, kinds = torch.nn.Parameter(random(1, 11, 4)), torch.nn.Parameter(random(1, 3, 4))
    embeddings = WordEmbeddings(table, kinds, None)
    found = words()
    vectors = embeddings(found)
    assert vectors.shape == (6, 4)
    torch.testing.assert_close(vectors[0], table[0, [5, 6, 7]].mean(0) + kinds[0, FIRST])
    last = torch.tensor([found.ids[7].item() % 11, 2])
    torch.testing.assert_close(vectors[5], table[0, last].mean(0) + kinds[0, SECOND])


def test_each_trial_reads_its_own_tables() -> None:
    table, kinds = trained_table(11, 4, 1.0, generators(2), CPU), torch.nn.Parameter(random(2, 3, 4))
    together = WordEmbeddings(table, kinds, None)(words(2))
    for k in range(2):
        own = (torch.nn.Parameter(tensor[k : k + 1]) for tensor in (table, kinds))
        alone = WordEmbeddings(*own, None)(words())
        torch.testing.assert_close(together[6 * k : 6 * k + 6], alone)


@pytest.mark.parametrize("in_order", [True, False])  # as on a CPU, and as on a GPU
def test_vectors_are_added_up_by_row_in_an_order_that_is_asked_for(
    in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_embeddings, "_adds_in_order", lambda device: in_order)
    called: list[str] = []
    for name in ("index_add", "index_put"):
        original = getattr(Tensor, name)
        monkeypatch.setattr(
            Tensor, name, lambda *given, _o=original, _n=name, **named: called.append(_n) or _o(*given, **named)
        )
    vectors = random(6, 3).requires_grad_()
    rows = torch.tensor([1, 0, 1, 3, 3, 1])
    total = sum_by_row(vectors, rows, 4)
    expected = torch.stack([vectors[rows == row].sum(dim=0) for row in range(4)])
    torch.testing.assert_close(total, expected)
    (grad,) = torch.autograd.grad((total * random(4, 3, seed=1)).sum(), vectors)
    assert torch.equal(grad, random(4, 3, seed=1)[rows])
    assert called == ["index_add" if in_order else "index_put"]
