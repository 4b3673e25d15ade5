"""Tables of text that say how far scores and probabilities can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.tables import Names, TextTable


def calibration_table(calibration: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per configuration of `Results.calibration`, without its bins."""
    backbones = backbone_names(calibration) if backbones is None else backbones
    models: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in calibration.to_pylist():
        models.setdefault((row["task"], row["config_id"]), []).append(row)
    rows = []
    for bins in models.values():
        row, sizes = bins[0], [each["bin_rows"] for each in bins]
        accuracy, confidence = (
            float(np.average([each[name] for each in bins], weights=sizes))
            for name in ("bin_accuracy", "bin_confidence")
        )
        rows.append(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                row["split"],
                wording.score(accuracy),
                wording.score(confidence),
                wording.score(row["expected_calibration_error"], row["expected_calibration_error_sem"]),
                wording.cell(row["num_rows"]),
                wording.cell(row["num_seeds"]),
            )
        )
    return TextTable(
        title="Whether the best of each method is right as often as it says",
        left=("task", "method", "split"),
        right=("accuracy", "confidence", "calibration error", "rows", "seeds"),
        rows=tuple(rows),
        note="Confidence is the largest probability. The error is the mean distance of confidence and accuracy over "
        "bins of confidence, as a mean over seeds; with few rows it comes out too large. calibration.csv has the bins.",
    )


def optimism_table(optimism: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per group of `Results.optimism`."""
    backbones = backbone_names(optimism) if backbones is None else backbones
    return TextTable(
        title="How much better the best looks on validation, where it was chosen, than on test",
        left=("task", "method"),
        right=("validation", "test", "gap", "average gap", "optimism", "tried"),
        rows=tuple(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                wording.score(row["validation_mean"]),
                wording.score(row["test_mean"]),
                wording.signed(row["gap"]),
                wording.signed(row["average_gap"]),
                wording.signed(row["optimism"]),
                wording.cell(row["num_configs_tried"]),
            )
            for row in optimism.to_pylist()
        ),
        note="The average gap is that of all configurations: what the two splits differ by. What the best one's gap "
        "has beyond it, choosing has added.",
    )
