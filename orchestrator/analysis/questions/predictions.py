"""What trials predicted of each row, for questions of one trial or of several side by side.

Predictions are read when they are asked for, from wherever a `PredictionSource` has them, and only those of the trials
that are asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.record import TrialStatus
from trainables.faults import FaultsError, unknown_name

_ASKED = ("trial_id", "status", "sweep", "started_at")
_WHY_NOT = {
    TrialStatus.PRUNED: "was stopped early",
    TrialStatus.FAILED: "failed",
    TrialStatus.CANCELLED: "was cancelled",
}


class PredictionSource(Protocol):
    """Where predictions are kept."""

    def read(self, trainings: Mapping[str, str | None], split: str | None) -> Mapping[str, pa.Table]:
        """A table a trial, of trials as `trial_id -> started_at`, of one split or of all; none of others.

        Columns: trial_id, split, rows (an id, equal for equal rows), row, row_hash, label, prediction, scores, classes.
        Raises `FaultsError` where what is kept cannot be read.
        """

    def why_none(self, sweep: str) -> str:
        """Why a completed trial of this sweep may have no predictions, to follow "because"."""


def predictions_of_trials(
    source: PredictionSource | None,
    trials: pa.Table,
    planned: frozenset[str],
    trial_ids: Sequence[str],
    split: str | None,
) -> pa.Table:
    """What trials predicted, one under the other in the order given; see `Results.predictions`.

    `trials` are the recorded ones, `planned` holds the ids of all. Raises `FaultsError` holding every fault: ids that
    are unknown or stand twice, trials without predictions and why, a split that one does not have, rows that differ.
    """
    rows = {row["trial_id"]: row for row in trials.select(list(_ASKED)).to_pylist()}
    faults = [] if trial_ids else ["trial_ids: must name at least one trial, but got none"]
    if split is not None and not isinstance(split, str):
        faults.append(f"split: must be the name of one, but got {split!r}")
    if unnamed := [each for each in trial_ids if not isinstance(each, str)]:
        faults += [unknown_name("trial", each, rows) for each in unnamed]
    named = Counter(each for each in trial_ids if isinstance(each, str))
    for trial_id, number in named.items():
        if number > 1:
            faults.append(f"trial_ids: every trial must stand once, but {trial_id} stands twice")
        if trial_id in rows:
            status = TrialStatus(rows[trial_id]["status"])
            if reason := _WHY_NOT.get(status):
                faults.append(f"trial {trial_id} {reason}, and predictions are kept of completed trials alone")
        elif trial_id in planned:
            faults.append(f"trial {trial_id} has not ended, and predictions are kept of completed trials alone")
        else:
            faults.append(unknown_name("trial", trial_id, rows))
    if faults:
        raise FaultsError("predictions", faults)
    trainings = {trial_id: rows[trial_id]["started_at"] for trial_id in trial_ids}
    found = {} if source is None else dict(source.read(trainings, split))
    for trial_id in trial_ids:
        if trial_id not in found:
            faults.append(_why_none(source, rows[trial_id]["sweep"], trainings, trial_id, split))
    faults = faults or _different_rows([found[trial_id] for trial_id in trial_ids])
    if faults:
        raise FaultsError("predictions", list(dict.fromkeys(faults)))
    return pa.concat_tables([found[trial_id] for trial_id in trial_ids]).drop_columns(["rows"]).combine_chunks()


def _why_none(
    source: PredictionSource | None, sweep: str, trainings: Mapping[str, str | None], trial_id: str, split: str | None
) -> str:
    if source is None:
        return f"there are no predictions of trial {trial_id}, because these results were not loaded from a store"
    if split is not None and (whole := source.read({trial_id: trainings[trial_id]}, None)):
        known = pc.unique(whole[trial_id]["split"]).to_pylist()
        return unknown_name(f"split of trial {trial_id}", split, known)
    return f"there are no predictions of trial {trial_id}, because {source.why_none(sweep)}"


def _different_rows(tables: Sequence[pa.Table]) -> list[str]:
    """The faults of trials that cannot be compared row by row with the first one."""
    first, *others = tables
    asked = pc.unique(first["rows"])
    return [
        f"trials must have been evaluated on the same rows to be read together, but those of {_trial(table)} have "
        f"other texts, labels or another order than those of {_trial(first)}; ask for each of them alone"
        for table in others
        if not pc.unique(table["rows"]).equals(asked)
    ]


def _trial(table: pa.Table) -> str:
    return str(table["trial_id"][0].as_py())
