"""What steps read, kept on the device: a task's rows, and the whole course of every trial of a pack.

Uploaded once, so that a step tells the device nothing: which rows come next, which masks are drawn and how far weights
move all follow from each trial's step, which the device counts itself. The host knows of a batch how many word pieces
it has, by which it picks one of a few shapes.

Suffixes: K trials, B sequences a trial, S = K*B, T steps of all trials.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.data.tokenized import TokenizedSplit
from trainables.nn.dropout import StepKeys, TrialRates
from trainables.nn.pieces import Pieces, PieceStore
from trainables.training.optimizer import StepNumbers, learning_rate
from trainables.training.running_trial import RunningTrial

# Shapes are multiples of it, which suits tensor cores.
_MULTIPLE = 16


def bucket_of_rows(num_rows: int) -> int:
    """The rows a trial's segment is given: 1, 1.25, 1.5 or 1.75 times a power of two, at most a quarter too many."""
    if num_rows <= 4 * _MULTIPLE:
        return max(1, -(-num_rows // _MULTIPLE)) * _MULTIPLE
    quarter = 2 ** ((num_rows - 1).bit_length() - 3)
    return -(-num_rows // quarter) * quarter


def few_sizes(num_rows: int) -> int:
    """So many rows or, from 64 on, up to a 32nd more: 32 numbers between each power of two and the next.

    On a CPU oneDNN builds a kernel for each number of rows that a product never had before.
    """
    quantum = 2 ** max(0, num_rows.bit_length() - 6)
    return -(-num_rows // quantum) * quantum


def multiple_of_8(num_rows: int) -> int:
    """So many rows or up to 7 more, which suits tensor cores."""
    return -(-num_rows // 8) * 8


def bucket_of_length(length: int) -> int:
    """The length attention is made ready for: a power of two."""
    return max(_MULTIPLE, 2 ** (length - 1).bit_length())


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceSplit:
    """A split on a device."""

    pieces: PieceStore
    labels: Tensor  # int64, or float32 for numbers

    def batch(self, rows_S: Tensor, num_trials: int, rows_per_trial: int, longest: int) -> tuple[Pieces, Tensor]:
        """The word pieces and labels of some rows (S,), int64, those of trial after trial; see `PieceStore.gather`."""
        return self.pieces.gather(rows_S, num_trials, rows_per_trial, longest), self.labels[rows_S]


_ON_DEVICE: weakref.WeakKeyDictionary[TokenizedSplit, dict[torch.device, DeviceSplit]] = weakref.WeakKeyDictionary()


def on_device(split: TokenizedSplit, device: torch.device) -> DeviceSplit:
    """A split on a device, brought there once for as long as it lives, or until it is let go of."""
    known = _ON_DEVICE.setdefault(split, {})
    if device not in known:
        labels = split.labels if split.labels.dtype == np.int64 else split.labels.astype(np.float32)
        known[device] = DeviceSplit(
            pieces=PieceStore(
                input_ids_P=_upload(split.input_ids, device),
                token_types_P=_upload(split.token_type_ids, device),
                offsets=_upload(split.offsets, device),
                lengths=_upload(split.lengths, device),
            ),
            labels=_upload(labels, device),
        )
    return known[device]


def let_go_of_splits() -> None:
    """Free what splits have on devices, which another task's may want: whoever asks brings a split there again.

    Whoever still uses one must hold it.
    """
    _ON_DEVICE.clear()


@torch.inference_mode(False)  # whoever asks first may be an evaluation, and then a training
def _upload(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy even on the CPU: what is mapped from a file cannot be written to, which torch warns of."""
    return torch.from_numpy(np.array(array)).to(device)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialCourse:
    """What every step of a trial is taken with."""

    rows_TB: Tensor  # int32: rows of the split, on the device
    rates_T: Tensor  # float64: learning rates, on the device
    pieces_T: np.ndarray  # word pieces of each batch
    longest_T: np.ndarray  # and of its longest row

    @staticmethod
    def of(trial: RunningTrial, lengths: np.ndarray, device: torch.device) -> TrialCourse:
        """`lengths` are those of all rows of the split."""
        rows_TB = np.stack(trial.batches)
        steps = len(rows_TB)
        rates = [learning_rate(trial.config, step, steps) for step in range(steps)]
        return TrialCourse(
            rows_TB=_upload(rows_TB.astype(np.int32), device),
            rates_T=_upload(np.array(rates), device),
            pieces_T=lengths[rows_TB].sum(axis=1),
            longest_T=lengths[rows_TB].max(axis=1),
        )


class Course:
    """The courses of a pack's trials end to end, and how far each has come.

    Args:
        trials: of the pack, in its order.
        courses: of each.
        device: of the vectors.
    """

    def __init__(self, trials: Sequence[RunningTrial], courses: Sequence[TrialCourse], device: torch.device) -> None:
        self.steps = [trial.step for trial in trials]
        self._courses = courses
        self._rows_TB = torch.cat([course.rows_TB for course in courses])
        self._rates_T = torch.cat([course.rates_T for course in courses])
        starts = np.concatenate([[0], np.cumsum([len(course.pieces_T) for course in courses])[:-1]])
        whole = [starts, self.steps, [trial.dropout_seed for trial in trials]]
        self._starts_K, self._steps_K, self._seeds_K = (_upload(np.array(each, np.int64), device) for each in whole)
        numbers = [[trial.config.weight_decay, trial.config.max_grad_norm] for trial in trials]
        self._decays_K, self._max_norms_K = _upload(np.array(numbers, np.float64).T, device).contiguous()
        self._dropout = [trial.config.dropout for trial in trials]
        self._device = device
        self._rates: dict[tuple[int, int], TrialRates] = {}

    def shape(self) -> tuple[int, int]:
        """Of the batches that come next, as buckets: the rows of a trial's segment, and the longest sequence."""
        places = list(zip(self._courses, self.steps, strict=True))
        num_rows = max(int(course.pieces_T[step]) for course, step in places)
        longest = max(int(course.longest_T[step]) for course, step in places)
        return bucket_of_rows(num_rows), bucket_of_length(longest)

    def rows_S(self, first: int, last: int) -> Tensor:
        """The rows of the split that trials first..last-1 learn from next, int64, trial after trial."""
        return self._rows_TB[self._now(first, last)].flatten().long()

    def keys(self, first: int, last: int, pieces: Pieces) -> StepKeys:
        """What the masks of their next step follow from."""
        if (first, last) not in self._rates:
            self._rates[first, last] = TrialRates(self._dropout[first:last], self._device)
        return StepKeys(self._seeds_K[first:last], self._steps_K[first:last], self._rates[first, last], pieces)

    def numbers(self, first: int, last: int) -> StepNumbers:
        """What their next step is taken with."""
        return StepNumbers(
            rates_K=self._rates_T[self._now(first, last)],
            decays_K=self._decays_K[first:last],
            max_norms_K=self._max_norms_K[first:last],
            steps_K=self._steps_K[first:last] + 1,
        )

    def advance(self, first: int, last: int) -> None:
        """Have the device count a step of these trials."""
        self._steps_K[first:last].add_(1)

    def count(self, first: int, last: int) -> None:
        """Count it on the host."""
        for place in range(first, last):
            self.steps[place] += 1

    def _now(self, first: int, last: int) -> Tensor:
        return self._starts_K[first:last] + self._steps_K[first:last]
