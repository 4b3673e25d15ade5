"""A batch of word pieces laid end to end, trial after trial: what every module of a model works on.

Each of the K trials has a segment of M rows, M being what the longest of them needs, so private modules see their rows
as (K, M, D) without a copy. A row is one word piece. The tail of a shorter trial's segment are dummy rows, which belong
to no sequence: nothing is read from them, and no gradient comes from them.

Suffixes: K trials, B sequences a trial, S = K*B, M rows a trial, N = K*M, L length of the longest sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trainables.nn.kernels import pooling, rotary
from trainables.nn.kernels.sequences import DeviceSequences, Sequences


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """The word pieces of a batch and where its sequences lie."""

    input_ids_N: Tensor  # int64; of dummy rows any
    token_types_N: Tensor  # int64
    positions_N: Tensor  # int64: a row's place in its sequence
    owners_N: Tensor  # int64: the sequence of each row; S for dummy rows
    sequences: Sequences
    num_trials: int
    num_dummies: int | None  # None: the host does not know
    filled: Sequence[slice] | None = None  # the rows that are no dummies, or few of them; None: all, or not known here
    relative: object = None  # what attention adds to its scores by distance, see `nn.relative`; None: nothing

    @property
    def num_rows(self) -> int:
        """N, dummy rows included."""
        return self.input_ids_N.shape[0]

    @property
    def num_sequences(self) -> int:
        """S."""
        return len(self.sequences)

    @cached_property
    def first_rows_S(self) -> Tensor:
        """The row of each sequence's first word piece."""
        return self.sequences.starts_S.long()

    @cached_property
    def is_piece_KM(self) -> Tensor | None:
        """False for dummy rows; None where there are none."""
        if self.num_dummies == 0:
            return None
        return (self.owners_N < self.num_sequences).view(self.num_trials, -1)

    @cached_property
    def padded_SL(self) -> Tensor:
        """The row of each place of each sequence, padded to the longest; N where there is none."""
        places_L = torch.arange(self.sequences.longest, device=self.input_ids_N.device)
        rows_SL = self.first_rows_S[:, None] + places_L
        return rows_SL.masked_fill_(places_L >= self.sequences.lengths_S[:, None], self.num_rows)

    def angles(self, theta: float, head_width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rows' rotary positions; see `nn.kernels.rotary`. Computed once for all layers."""
        if (theta, head_width) not in self._angles:
            self._angles[theta, head_width] = rotary.angles(self.positions_N, theta, head_width)
        return self._angles[theta, head_width]

    @cached_property
    def _angles(self) -> dict[tuple[float, int], tuple[Tensor, Tensor]]:
        return {}

    def pad(self, rows_NX: Tensor, value: float = 0.0) -> Tensor:
        """Rows (N, X) as sequences padded on the right (S, L, X)."""
        filling = rows_NX.new_full((1, rows_NX.shape[1]), value)
        return torch.cat([rows_NX, filling])[self.padded_SL]

    def unpad(self, padded_SLX: Tensor) -> Tensor:
        """The inverse of `pad`: rows (N, X), zeros in dummy rows."""
        rows_NX = padded_SLX.new_zeros(self.num_rows + 1, padded_SLX.shape[2])
        return rows_NX.index_copy(0, self.padded_SL.flatten(), padded_SLX.flatten(0, 1))[:-1]

    def first(self, hidden_ND: Tensor) -> Tensor:
        """The row of each sequence's first word piece (S, D)."""
        return pooling.take_first(hidden_ND, self.sequences)

    def mean(self, hidden_ND: Tensor) -> Tensor:
        """The mean over the word pieces of each sequence (S, D), summed in float32."""
        return pooling.mean(hidden_ND, self.owners_N, self.sequences)


@dataclass(frozen=True, kw_only=True, eq=False)
class PieceStore:
    """The word pieces of all rows of a split, on a device: those of row i are offsets[i] to offsets[i + 1]."""

    input_ids_P: Tensor  # int32
    token_types_P: Tensor  # int8
    offsets: Tensor  # int64, one more than rows
    lengths: Tensor  # int64 of each row

    def gather(self, rows_S: Tensor, num_trials: int, rows_per_trial: int, longest: int) -> Pieces:
        """The batch of these rows (S,), int64, trial after trial: what `pieces_of` makes, without asking the host.

        Shapes follow from the numbers alone. `rows_per_trial` must be at least the word pieces of any trial's rows,
        and `longest` at least those of any row; neither is checked.
        """
        size = len(rows_S)
        lengths_KB = self.lengths[rows_S].view(num_trials, -1)
        per_trial = lengths_KB.shape[1]
        ends_KB = lengths_KB.cumsum(dim=1)
        segments_K1 = torch.arange(num_trials, device=rows_S.device)[:, None]
        starts_S = (ends_KB - lengths_KB + segments_K1 * rows_per_trial).flatten()
        places_M = torch.arange(rows_per_trial, device=rows_S.device)
        # Of each row of the batch, how many sequences of its trial end before it: its own is the next.
        own_KM = torch.searchsorted(ends_KB, places_M.expand(num_trials, -1).contiguous(), right=True)
        dummy_N = (own_KM == per_trial).flatten()
        owners_N = (own_KM.clamp_max(per_trial - 1) + segments_K1 * per_trial).flatten()
        rows_N = torch.arange(num_trials * rows_per_trial, device=rows_S.device)
        positions_N = (rows_N - starts_S[owners_N]).masked_fill(dummy_N, 0)
        sources_N = self.offsets[rows_S][owners_N] + positions_N
        return Pieces(
            input_ids_N=self.input_ids_P[sources_N].long().masked_fill(dummy_N, 0),
            token_types_N=self.token_types_P[sources_N].long().masked_fill(dummy_N, 0),
            positions_N=positions_N,
            owners_N=owners_N.masked_fill(dummy_N, size),
            sequences=DeviceSequences(
                starts_S, lengths_KB.flatten(), longest=longest, num_trials=num_trials, num_rows=len(rows_N)
            ),
            num_trials=num_trials,
            num_dummies=None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """Where the rows of a split lie in a batch of K trials' segments: host arrays, from which a batch is filled."""

    rows_S: np.ndarray  # which rows of the split, trial after trial
    starts_S: np.ndarray  # int64: where each begins in the batch
    lengths_S: np.ndarray  # int64
    num_trials: int
    rows_per_trial: int  # M
    filled: Sequence[slice]  # of each trial's segment the rows up to its last sequence's end, rounded up

    @property
    def num_rows(self) -> int:
        """N."""
        return self.num_trials * self.rows_per_trial

    @cached_property
    def places_T(self) -> np.ndarray:
        """Where in the batch each word piece goes, int64 (T,), T of them being no dummies."""
        return np.repeat(self.starts_S, self.lengths_S) + self.positions_T

    @cached_property
    def positions_T(self) -> np.ndarray:
        """The place of each of these word pieces in its sequence."""
        ends = np.cumsum(self.lengths_S)
        return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - self.lengths_S, self.lengths_S)

    @cached_property
    def owners_N(self) -> np.ndarray:
        """The sequence of each row; S for dummy rows."""
        owners = np.full(self.num_rows, len(self.rows_S), np.int64)
        owners[self.places_T] = np.repeat(np.arange(len(self.rows_S)), self.lengths_S)
        return owners


def lay(
    rows_S: np.ndarray, lengths_S: np.ndarray, num_trials: int, *, round_up: Callable[[int], int] | None = None
) -> Laid:
    """Lay S = K*B sequences, trial after trial, into K segments of as many rows as the longest needs.

    `round_up` gives the rows that a trial is given which needs so many; no fewer to one that needs more.
    """
    lengths_S = lengths_S.astype(np.int64)
    lengths_KB = lengths_S.reshape(num_trials, -1)
    rows_K = [rows if round_up is None else round_up(rows) for rows in lengths_KB.sum(axis=1).tolist()]
    longest = max(rows_K)
    within_KB = np.cumsum(lengths_KB, axis=1) - lengths_KB
    starts_K = longest * np.arange(num_trials)
    return Laid(
        rows_S=rows_S,
        starts_S=(within_KB + starts_K[:, None]).reshape(-1),
        lengths_S=lengths_S,
        num_trials=num_trials,
        rows_per_trial=longest,
        filled=[slice(start, start + rows) for start, rows in zip(starts_K.tolist(), rows_K, strict=True)],
    )


def pieces_of(laid: Laid, ids_T: np.ndarray, types_T: np.ndarray, device: torch.device) -> Pieces:
    """The batch of these word pieces, in the order of `Laid.places_T`."""
    arrays = np.zeros((3, laid.num_rows), np.int64)
    arrays[0, laid.places_T], arrays[1, laid.places_T], arrays[2, laid.places_T] = ids_T, types_T, laid.positions_T
    ids, types, positions, owners = (
        _to_device(array, device) for array in (arrays[0], arrays[1], arrays[2], laid.owners_N)
    )
    return Pieces(
        input_ids_N=ids,
        token_types_N=types,
        positions_N=positions,
        owners_N=owners,
        sequences=Sequences(
            laid.starts_S, laid.lengths_S, num_trials=laid.num_trials, num_rows=laid.num_rows, device=device
        ),
        num_trials=laid.num_trials,
        num_dummies=laid.num_rows - len(laid.places_T),
        filled=laid.filled,
    )


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    # Only from pinned memory does a copy not wait.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
