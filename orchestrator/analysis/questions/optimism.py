"""How much the winner of many promises too much: its validation score beside its test score and the number tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import Configuration, higher_is_better
from orchestrator.analysis.statistics.selection import optimism_of_the_winner

COLUMNS = {
    "num_compared": pa.int64(),
    **dict.fromkeys(("gap", "average_gap", "optimism"), pa.float64()),
}


def optimism_row(contenders: Sequence[Configuration]) -> dict[str, Any]:
    """Of configurations with both scores, the winner first; gaps are positive where validation looks better."""
    sign = 1.0 if higher_is_better(contenders[0].metric) else -1.0
    pairs = [(c.validation.mean, c.test.mean) for c in contenders if c.validation and c.test]
    validation, test = ([sign * score for score in scores] for scores in zip(*pairs, strict=True))
    found = optimism_of_the_winner(validation, test)
    return {
        "num_compared": found.num_tried,
        "gap": found.gap,
        "average_gap": found.average_gap,
        "optimism": found.optimism,
    }
