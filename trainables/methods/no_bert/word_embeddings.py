"""Hashed words of a batch, and their vectors. What is read is described in `trainables.methods.no_bert.words`.

Suffixes: K trials, S = K*B rows, N ids of all rows, T words of all rows, E embedding width, V buckets of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.methods.no_bert.vectors import StaticVectors
from trainables.methods.no_bert.words import FIRST, NUM_WORD_KINDS, PIECE
from trainables.nn.initialisation import truncated_normal, zeros
from trainables.nn.pieces import Pieces

# A word of the second text stands in another bucket than in the first, and in a third where both say it.
_SALTS = (0, 0x2545F491, 0x5DEECE66)
# An n-gram's hash from that of its words: (h * FACTOR + next) mod PRIME, the products within 64 bits.
_FACTOR, _PRIME = 1_540_483_477, 2**31 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Words:
    """The words of a batch, one after the other, whatever row they stand in; every row has one at least."""

    ids: Tensor  # [all ids that are no padding]: each word's hash and those of its pieces
    starts: Tensor  # [T]: where in `ids` each word begins
    kinds: Tensor  # [T]: first text, second, or second and first
    rows: Tensor  # [T]: the row each word stands in, ascending
    hashes: Tensor  # [T]: of the word alone, the same in both texts
    num_rows: int

    @staticmethod
    def of(pieces: Pieces) -> Words:
        """Read a batch as `trainables.methods.no_bert.words` lays it out."""
        ids, types, rows = pieces.input_ids_N, pieces.token_types_N, pieces.owners_N
        if pieces.num_dummies != 0:
            is_piece = rows < pieces.num_sequences
            ids, types, rows = ids[is_piece], types[is_piece], rows[is_piece]
        starts = (types != PIECE).nonzero().view(-1)
        hashes, kinds = ids[starts], types[starts]
        if bool((kinds != FIRST).any()):
            salts = torch.tensor(_SALTS, device=ids.device)
            ids = ids.index_copy(0, starts, hashes ^ salts[kinds])
        return Words(
            ids=ids, starts=starts, kinds=kinds, rows=rows[starts], hashes=hashes, num_rows=pieces.num_sequences
        )

    @property
    def counts(self) -> Tensor:
        """Words of each row [S]."""
        return torch.bincount(self.rows, minlength=self.num_rows)

    def ngrams(self, longest: int) -> tuple[Tensor, Tensor]:
        """Hashes of the word n-grams of 1 to `longest` words, and the rows they stand in; none reaches over texts."""
        hashes = self.ids[self.starts]
        text = 2 * self.rows + (self.kinds != FIRST)
        found, rows = [hashes], [self.rows]
        for length in range(2, longest + 1):
            hashes = (hashes[:-1] * _FACTOR + self.ids[self.starts][length - 1 :]) % _PRIME
            is_within = text[length - 1 :] == text[: len(hashes)]
            found.append(hashes[is_within])
            rows.append(self.rows[: len(hashes)][is_within])
        return torch.cat(found), torch.cat(rows)


def trial_of(rows: Tensor, num_rows: int, num_trials: int) -> Tensor:
    """The trial that each row of a batch belongs to."""
    return rows.div(num_rows // num_trials, rounding_mode="floor")


def sum_by_row(vectors_TX: Tensor, rows_T: Tensor, num_rows: int) -> Tensor:
    """The sum of the vectors of each row (S, X), in an order that never changes: a trial is the same twice."""
    total_SX = vectors_TX.new_zeros(num_rows, vectors_TX.shape[1])
    if _adds_in_order(vectors_TX.device):
        return total_SX.index_add(0, rows_T, vectors_TX)
    return total_SX.index_put((rows_T,), vectors_TX, accumulate=True)  # sorts by row first


def _adds_in_order(device: torch.device) -> bool:
    """Whether `index_add` goes through what it adds in order; the threads of a GPU come as they will."""
    return device.type == "cpu"


class WordEmbeddings(nn.Module):
    """A vector for each word: the mean of what a table of buckets holds for the word and its pieces.

    Pairs add what is told by a word's kind. With static vectors those are added, and the table holds what is learned
    beyond them; without a table they are all there is.

    Args:
        table: (K, V, E) trained; (V, E) frozen, the same for all trials; or None.
        kinds: (K, 3, E) trained.
        static: vectors from a file.
    """

    def __init__(self, table: nn.Parameter | None, kinds: nn.Parameter, static: StaticVectors | None) -> None:
        super().__init__()
        self.table = table
        self.kinds = kinds
        self.static = static

    def forward(self, words: Words) -> Tensor:
        """(T, E) in float32."""
        num_trials, num_kinds, width = self.kinds.shape
        trials = trial_of(words.rows, words.num_rows, num_trials)
        vectors = F.embedding(trials * num_kinds + words.kinds, self.kinds.float().reshape(-1, width))
        if self.table is not None:
            buckets = words.ids % self.table.shape[-2]
            if self.table.dim() == 3 and num_trials > 1:
                sizes = words.starts.diff(append=words.starts.new_tensor([len(words.ids)]))
                buckets = buckets + (trials * self.table.shape[-2]).repeat_interleave(sizes)
            table = self.table.float().reshape(-1, width)
            vectors = vectors + F.embedding_bag(buckets, table, words.starts, mode="mean")
        if self.static is not None:
            vectors = vectors + self.static(words.hashes)
        return vectors


def trained_table(
    buckets: int, width: int, std: float, generators: Sequence[torch.Generator], device: torch.device
) -> nn.Parameter:
    """(K, V, E), each trial's drawn from its own generator; zeros where std is 0."""
    if std == 0:
        return zeros(len(generators), (buckets, width), device)
    return truncated_normal((buckets, width), std, generators, device)


def frozen_table(buckets: int, width: int, std: float, device: torch.device, dtype: torch.dtype) -> nn.Parameter:
    """(V, E), the same for every trial."""
    drawn = truncated_normal((buckets, width), std, [torch.Generator().manual_seed(0)], device).detach()[0]
    return nn.Parameter(drawn.to(dtype), requires_grad=False)


def kind_vectors(width: int, num_trials: int, device: torch.device) -> nn.Parameter:
    """(K, 3, E): what a word's kind adds to it, nothing to begin with."""
    return zeros(num_trials, (NUM_WORD_KINDS, width), device)
