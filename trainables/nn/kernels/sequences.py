"""Where the sequences of a batch lie among its rows, and which of them go through attention together.

Suffixes: S = K*B sequences, trial after trial, G sequences of a group, L their padded length.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_GROUPS = 6
_MULTIPLE = 8  # padded lengths are multiples of it
# What a padded sequence of length L costs beside its L*L scores, and a group beside its sequences, in scores of a head:
# copies of its rows, and some twenty calls.
_PER_POSITION, _PER_GROUP = 32, 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Sequences of similar lengths, padded to one."""

    length: int  # L, a multiple of 8
    sequences_G: Tensor  # int64: which of the batch's
    trials_G: Tensor  # int64
    places_G: Tensor  # int32
    rows_GL: Tensor  # int64: each position's row; for padding the sequence's own first one, so that nothing is mixed
    targets_GL: Tensor  # int64: the same, but for padding the number of rows, one past the last
    padding_GL: Tensor  # bool


class Sequences:
    """The S sequences of a batch of N rows; groups are made when they are first asked for.

    Args:
        starts_S: each sequence's first row, ascending, of NumPy.
        lengths_S: its rows, which may be 0, of NumPy.
        num_trials: K. Each has S / K sequences, whose place in the trial's batch is their place among these.
        num_rows: N.
        device: of the rows.
    """

    def __init__(
        self, starts_S: np.ndarray, lengths_S: np.ndarray, *, num_trials: int, num_rows: int, device: torch.device
    ) -> None:
        self.num_trials, self.num_rows, self.device = num_trials, num_rows, device
        self.longest = int(lengths_S.max(initial=0))
        self._starts_S, self._lengths_S = starts_S.astype(np.int64), lengths_S.astype(np.int64)
        self.starts_S = torch.from_numpy(starts_S.astype(np.int32)).to(device)
        self.lengths_S = torch.from_numpy(lengths_S.astype(np.int32)).to(device)

    def __len__(self) -> int:
        return len(self.starts_S)

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        """Every sequence that has rows, in groups from short to long; at most `MAX_GROUPS`."""
        return self._make_groups()

    def _make_groups(self) -> tuple[Group, ...]:
        padded_S = -(-self._lengths_S // _MULTIPLE) * _MULTIPLE
        ends = _group_ends(padded_S[padded_S > 0])
        return tuple(
            self._group(np.flatnonzero((padded_S > below) & (padded_S <= end)), end)
            for below, end in zip([0, *ends], ends, strict=False)
        )

    def _group(self, members_G: np.ndarray, length: int) -> Group:
        starts_G1 = self._starts_S[members_G, None]
        positions_L = np.arange(length)
        padding_GL = positions_L >= self._lengths_S[members_G, None]
        per_trial = len(self) // self.num_trials
        arrays = (
            members_G,
            members_G // per_trial,
            (members_G % per_trial).astype(np.int32),
            np.where(padding_GL, starts_G1, starts_G1 + positions_L),
            np.where(padding_GL, self.num_rows, starts_G1 + positions_L),
            padding_GL,
        )
        sequences_G, trials_G, places_G, rows_GL, targets_GL, padding = (
            torch.from_numpy(array).to(self.device) for array in arrays
        )
        return Group(
            length=length,
            sequences_G=sequences_G,
            trials_G=trials_G,
            places_G=places_G,
            rows_GL=rows_GL,
            targets_GL=targets_GL,
            padding_GL=padding,
        )


class DeviceSequences(Sequences):
    """Sequences of which the host knows only how many they are and how long any may be.

    They go through attention in one group, so that its shapes follow from nothing else.

    Args:
        starts_S: each sequence's first row, int64, on the rows' device.
        lengths_S: its rows, int64, on the same device.
        longest: at least the rows of the longest.
        num_trials: K.
        num_rows: N.
    """

    def __init__(self, starts_S: Tensor, lengths_S: Tensor, *, longest: int, num_trials: int, num_rows: int) -> None:
        self.num_trials, self.num_rows, self.device = num_trials, num_rows, starts_S.device
        self.longest = longest
        self.starts_S, self.lengths_S = starts_S.to(torch.int32), lengths_S.to(torch.int32)

    def _make_groups(self) -> tuple[Group, ...]:
        length = -(-self.longest // _MULTIPLE) * _MULTIPLE
        members_S = torch.arange(len(self), device=self.device)
        per_trial = len(self) // self.num_trials
        starts_S1 = self.starts_S.long()[:, None]
        positions_L = torch.arange(length, device=self.device)
        padding_SL = positions_L >= self.lengths_S[:, None]
        rows_SL = starts_S1 + positions_L
        return (
            Group(
                length=length,
                sequences_G=members_S,
                trials_G=members_S // per_trial,
                places_G=(members_S % per_trial).to(torch.int32),
                rows_GL=torch.where(padding_SL, starts_S1, rows_SL),
                targets_GL=rows_SL.masked_fill(padding_SL, self.num_rows),
                padding_GL=padding_SL,
            ),
        )


def _group_ends(padded_S: np.ndarray) -> list[int]:
    """The padded lengths of the cheapest grouping, ascending."""
    lengths_U, counts_U = np.unique(padded_S, return_counts=True)
    size = len(lengths_U)
    if size == 0:
        return []
    totals = np.concatenate([[0], np.cumsum(counts_U)])
    # costs[i, j]: of a group of the i-th to the j-th length
    members_UU = totals[None, 1:] - totals[:-1, None]
    costs_UU = members_UU * (lengths_U.astype(float) ** 2 + _PER_POSITION * lengths_U) + _PER_GROUP
    costs_UU[np.tril_indices(size, -1)] = np.inf
    best_U, firsts, totals_of = costs_UU[0], [np.zeros(size, dtype=int)], [costs_UU[0, -1]]
    for _ in range(1, min(MAX_GROUPS, size)):
        # One more group, which begins at the i-th length, after the best grouping of all below.
        through_UU = np.concatenate([[np.inf], best_U[:-1]])[:, None] + costs_UU
        firsts.append(through_UU.argmin(axis=0))
        best_U = through_UU.min(axis=0)
        totals_of.append(best_U[-1])
    ends, last = [], size - 1
    for count in range(int(np.argmin(totals_of)), -1, -1):
        ends.append(int(lengths_U[last]))
        last = int(firsts[count][last]) - 1
    return ends[::-1]
