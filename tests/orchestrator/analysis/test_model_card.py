"""The model card of what is exported: what it says of spread."""

from __future__ import annotations

import math
import re
import statistics
from typing import Any

from orchestrator.analysis.model_card import Standing, completed_card

ADAPTER = {"method": "adapter", "adapter_size": 8, "learning_rate": 1e-3}
CARD = "---\nlibrary_name: adaptune\n---\n# adapter\n\n```python\n```\n"


def card_of(rows: list[dict[str, Any]]) -> str:
    task = {"kind": "classification"}
    return completed_card(CARD, Standing(trial=rows[2], replicates=rows, num_configurations=1, num_failed=2, task=task))


def test_over_folds_the_interval_is_the_widened_one_and_the_weights_are_those_of_a_fold(synthetic: Any) -> None:
    scores = [0.80, 0.82, 0.86, 0.81, 0.84]
    rows = [{**row, "seed": 0, "fold": k} for k, row in enumerate(synthetic.scored(ADAPTER, scores))]
    rows += [{**row, "seed": 1} for row in rows]  # which trained the same models, so nothing more is known
    card = card_of(rows)
    [low, high] = map(float, re.findall(r"\| validation .*\| (0\.\d+) to (0\.\d+) \|", card)[0])
    reach = 2.7764451 * math.sqrt((1 / 5 + 1 / 4) * statistics.variance(scores))  # of Student's with 4 degrees
    assert abs(low - (0.826 - reach)) < 1e-3
    assert abs(high - (0.826 + reach)) < 1e-3
    assert "mean over folds" in card
    assert "those of seed 0 fold 2" in card
    assert "1 configuration of adapter was tried on this task; 2 trials failed" in card


def test_over_seeds_it_is_students(synthetic: Any) -> None:
    scores = [0.80, 0.82, 0.86]
    card = card_of(synthetic.scored(ADAPTER, scores))
    [low] = re.findall(r"\| validation .*\| (0\.\d+) to 0\.\d+ \| ", card)
    assert abs(float(low) - (statistics.mean(scores) - 4.3026527 * statistics.stdev(scores) / math.sqrt(3))) < 1e-3
    assert "those of seed 2" in card
