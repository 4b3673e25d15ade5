"""Figure 7 of Houlsby et al. 2019: how much a hyperparameter matters when all others are tuned to it.

Figure 6 (right) is the same question with the scale of the adapters' initial values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import Configuration, contenders, gain, group_by, higher_is_better
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import Method, gaps, method_names


def robustness(configurations: Sequence[Configuration], hyperparameter: str, kind: pa.DataType) -> pa.Table:
    """A row per task, method and value; `Results.robustness` has the columns. `kind` is the type of the values."""
    own = [c for c in configurations if c.hyperparameters.get(hyperparameter) is not None]
    rows: list[dict[str, Any]] = []
    for (task, backbone, method), group in group_by(own, ["task", "backbone", "method"]).items():
        points = []
        for (value,), same in group_by(group, [hyperparameter]).items():
            if (best := contenders(same)) and (score := best[0].validation):
                points.append((value, best[0], score))
        for value, configuration, score in points:
            higher = higher_is_better(configuration.metric)
            top = (max if higher else min)(other.mean for _, _, other in points)
            rows.append(
                {
                    **{"task": task, "backbone": backbone, "method": method},
                    "config_id": configuration.config_id,
                    "metric": configuration.metric,
                    "hyperparameter": hyperparameter,
                    "value": value,
                    "validation_mean": score.mean,
                    "validation_sem": score.sem,
                    "loss_to_best": gain(top, score.mean, configuration.metric),
                    "num_seeds": score.num_seeds,
                    "num_folds": score.num_folds,
                    "num_configs_tried": sum(c.hyperparameters[hyperparameter] == value for c in group),
                }
            )
    schema = pa.schema(
        {
            **dict.fromkeys(("task", "backbone", "method", "config_id", "metric", "hyperparameter"), pa.string()),
            "value": kind,
            **dict.fromkeys(("validation_mean", "validation_sem", "loss_to_best"), pa.float64()),
            **dict.fromkeys(("num_seeds", "num_folds", "num_configs_tried"), pa.int64()),
        }
    )
    present = {(row["task"], Method(row["backbone"], row["method"])) for row in rows}
    values: dict[Method, set[Any]] = {}
    for row in rows:
        values.setdefault(Method(row["backbone"], row["method"]), set()).add(row["value"])
    names = method_names(sorted(values))
    notes = [
        f"{names[method]}: only {hyperparameter} {next(iter(tried)):g} was tried, so no curve"
        if isinstance(next(iter(tried)), int | float)
        else f"{names[method]}: only one {hyperparameter} was tried, so no curve"
        for method, tried in values.items()
        if len(tried) == 1
    ]
    return with_missing(pa.Table.from_pylist(rows, schema=schema), [*gaps(own, list(present)), *notes])
