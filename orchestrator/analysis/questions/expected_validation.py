"""Expected validation performance: what a search of a method would have found with fewer configurations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from orchestrator.analysis.configurations import Configuration, group_by, higher_is_better
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import Method, gaps, method_names, splits, summary
from orchestrator.analysis.statistics.expected_performance import expected_best
from orchestrator.analysis.text import wording

_EXPECTED = pa.schema(
    {
        **dict.fromkeys(("task", "backbone", "method", "metric", "split"), pa.string()),
        **dict.fromkeys(("num_configs", "num_configs_completed", "num_configs_tried"), pa.int64()),
        **dict.fromkeys(("engine_seconds", "expected_validation", "expected_score"), pa.float64()),
    }
)


def expected_validation(configurations: Sequence[Configuration], split: str | None = None) -> pa.Table:
    """A row per task, method and number of configurations; `Results.expected_validation` has the columns."""
    split_of = splits(configurations, split)
    rows: list[dict[str, object]] = []
    tried: dict[Method, int] = {}
    unscored: dict[Method, int] = {}
    for (task, backbone, name), group in group_by(configurations, ["task", "backbone", "method"]).items():
        scored = [(c, c.validation) for c in group if c.validation is not None]
        method = Method(backbone, name)
        unscored[method] = unscored.get(method, 0) + len(group) - len(scored)
        if not scored:
            continue
        metric = scored[0][0].metric
        sign = 1 if higher_is_better(metric) else -1
        validation = sign * np.array([score.mean for _, score in scored])
        budgets = np.arange(1, len(scored) + 1)
        found = sign * expected_best(validation, budgets)
        others = [summary(c, split_of[task]) for c, _ in scored]
        known = [other.mean for other in others if other is not None]
        is_reported = len(known) == len(scored)
        expected = expected_best(validation, budgets, reported=known) if is_reported else None
        spent = [c.engine_seconds for c, _ in scored if c.engine_seconds is not None]
        each = float(np.mean(spent)) if spent else None
        tried[method] = max(tried.get(method, 0), len(scored))
        for place, budget in enumerate(budgets.tolist()):
            rows.append(
                {
                    **{"task": task, "backbone": backbone, "method": name, "metric": metric},
                    "split": split_of[task],
                    "num_configs": budget,
                    "num_configs_completed": len(scored),
                    "num_configs_tried": len(group),
                    "engine_seconds": None if each is None else budget * each,
                    "expected_validation": float(found[place]),
                    "expected_score": None if expected is None else float(expected[place]),
                }
            )
    notes = gaps(configurations, [(str(row["task"]), Method(str(row["backbone"]), str(row["method"]))) for row in rows])
    names = method_names(sorted(unscored))
    # What early stopping has pruned is mostly what scores low, so a draw from the rest looks better than one from all.
    notes += [
        f"{names[method]}: {wording.plural(number, 'configuration')} without a completed trial, so of the others alone"
        for method, number in unscored.items()
        if number
    ]
    if len(set(tried.values())) > 1:
        least = min(tried.values())
        few = ", ".join(names[method] for method, number in tried.items() if number == least)
        notes.append(f"equal budgets: beyond {wording.plural(least, 'configuration')} there is nothing of {few}")
    return with_missing(pa.Table.from_pylist(rows, schema=_EXPECTED), notes)
