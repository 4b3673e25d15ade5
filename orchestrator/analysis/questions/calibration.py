"""Whether the best classifiers are right as often as they say, from the probabilities that the store keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.arguments import is_whole, name_faults
from orchestrator.analysis.configurations import Configuration
from orchestrator.analysis.questions.curve import SPLITS
from orchestrator.analysis.questions.predictions import PredictionSource
from orchestrator.analysis.row_outcomes import KeptRows, RowOutcomes
from orchestrator.analysis.statistics.calibration import Binning, reliability_of
from orchestrator.analysis.statistics.intervals import mean_and_standard_error
from trainables import metrics

_MOST_BINS = 10_000  # more than any split has rows worth telling apart

COLUMNS = {
    "split": pa.string(),
    **dict.fromkeys(("num_seeds", "num_rows"), pa.int64()),
    **dict.fromkeys(("expected_calibration_error", "expected_calibration_error_sem"), pa.float64()),
    "bin": pa.int64(),
    **dict.fromkeys(("bin_confidence", "bin_accuracy"), pa.float64()),
    "bin_rows": pa.int64(),
}


def faults_of(split: str | None, num_bins: int, binning: str) -> list[str]:
    """Every fault of what is asked, a sentence each."""
    faults = []
    if split is not None:
        faults += name_faults("split to look at", split, SPLITS)
    if not (is_whole(num_bins) and 1 <= num_bins <= _MOST_BINS):
        faults.append(f"num_bins: must be a whole number from 1 to {_MOST_BINS:,}, but got {num_bins!r}")
    return [*faults, *(f"binning: {fault}" for fault in name_faults("binning", binning, get_args(Binning)))]


def calibration_rows(
    configurations: Sequence[Configuration], kept: KeptRows, split: str | None, num_bins: int, binning: Binning
) -> list[tuple[Configuration, dict[str, Any]]]:
    """A row per configuration and bin that holds any row; none of a configuration without kept probabilities."""
    asked = [(c, split or ("test" if c.test else "validation")) for c in configurations if _predicts_classes(c)]
    kept.load(asked)
    num_bins = int(num_bins)
    rows = []
    for configuration, chosen in asked:
        found = kept.of(configuration, chosen)
        if found is not None and found.confidence is not None:
            rows += [(configuration, {"split": chosen, **row}) for row in _bins(found, num_bins, binning)]
    return rows


def _bins(found: RowOutcomes, num_bins: int, binning: Binning) -> list[dict[str, Any]]:
    assert found.confidence is not None
    right = found.predictions == found.labels
    errors = [
        reliability_of(sure, hit, num_bins=num_bins, binning=binning).expected_error
        for sure, hit in zip(found.confidence, right, strict=True)
    ]
    error, sem = mean_and_standard_error(errors)
    pooled = reliability_of(found.confidence.reshape(-1), right.reshape(-1), num_bins=num_bins, binning=binning)
    shared = {
        "num_seeds": len(right),
        "num_rows": right.shape[1],
        "expected_calibration_error": error,
        "expected_calibration_error_sem": sem,
    }
    columns = (pooled.bins, pooled.confidence, pooled.accuracy, pooled.num_rows)
    names = ("bin", "bin_confidence", "bin_accuracy", "bin_rows")
    return [
        {**shared, **dict(zip(names, values, strict=True))}
        for values in zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    ]


def left_out(
    configurations: Sequence[Configuration], rows: Sequence[tuple[Configuration, dict[str, Any]]]
) -> list[str]:
    """A sentence for each of the configurations of which there is no row."""
    shown = {configuration.config_id for configuration, _ in rows}
    return [
        f"{c.method} on {c.task}: "
        + (
            "no probabilities are kept of all its seeds"
            if _predicts_classes(c)
            else "has no single class a row to predict"
        )
        for c in configurations
        if c.config_id not in shown
    ]


def why_none(configurations: Sequence[Configuration], trials: pa.Table, source: PredictionSource | None) -> str:
    """Why no configuration of several has probabilities to look at, with the remedy."""
    if not any(map(_predicts_classes, configurations)):
        return "needs a task with one class a row to predict, but this sweep has none"
    if source is None:
        return "needs the probabilities that trials predicted, but these results were not loaded from a store"
    ids = pa.array([c.config_id for c in configurations if _predicts_classes(c)], pa.string())
    sweep = trials["sweep"].filter(pc.is_in(trials["config_id"], ids))[0].as_py()
    reason = source.why_none(sweep)
    return (
        f"needs the probabilities that trials predicted, but none are kept, because {reason}; they are kept of trials "
        "that are trained with keep_predictions: true"
    )


def _predicts_classes(configuration: Configuration) -> bool:
    return configuration.metric is not None and metrics.get(configuration.metric).kind == "classification"
