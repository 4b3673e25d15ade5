"""The curve of Houlsby et al. 2019: accuracy against trained parameters, as percentiles across tasks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.analysis.arguments import is_number, name_faults
from orchestrator.analysis.configurations import Configuration, SeedSummary, contenders, gain, group_by
from orchestrator.analysis.missing import missing_of, with_missing
from orchestrator.analysis.reported import Method, gaps, method_names, methods_of
from orchestrator.analysis.statistics.aggregates import percentiles
from orchestrator.analysis.statistics.intervals import mean
from orchestrator.analysis.text import wording
from orchestrator.spec.backbones import apart

SPLITS = ("validation", "test")

_POINTS = pa.schema(
    {
        "task": pa.string(),
        "backbone": pa.string(),
        "method": pa.string(),
        "trained_params_without_head": pa.int64(),
        "trained_params": pa.int64(),
        "config_id": pa.string(),
        "metric": pa.string(),
        "split": pa.string(),
        "score": pa.float64(),
        "score_sem": pa.float64(),
        "num_seeds": pa.int64(),
        "num_folds": pa.int64(),
        "reference": pa.float64(),
        "delta": pa.float64(),
    }
)


@dataclass(frozen=True, kw_only=True)
class CurveRequest:
    """What to draw."""

    quantiles: tuple[float, ...]
    normalize_to: str | None  # a method; None for the scores themselves
    split: str | None  # None: test where a task has test scores, else validation

    def faults(self, *, known_methods: Collection[str] | None) -> list[str]:
        """Every fault of it, a sentence each; with `known_methods` None any method passes."""
        faults = [
            f"quantiles: each must be a number in [0, 1], but got {quantile!r}"
            for quantile in self.quantiles
            if not is_number(quantile) or not 0 <= quantile <= 1
        ]
        if not faults and len({quantile_column(q) for q in self.quantiles}) < len(self.quantiles):
            faults.append(f"quantiles: must differ from each other, but got {self.quantiles!r}")
        is_named = self.normalize_to is None or isinstance(self.normalize_to, str)
        if self.normalize_to is not None and not (is_named and known_methods is None):
            found = name_faults("method of this sweep to normalize to", self.normalize_to, known_methods or ())
            faults += [f"{fault}; or None for the scores themselves" for fault in found]
        if self.split is not None:
            faults += name_faults("split to score on", self.split, SPLITS)
        return faults


def quantile_column(quantile: float) -> str:
    """The column of the curve that holds a quantile: p50 of 0.5, p2.5 of 0.025."""
    return f"p{100 * quantile:g}"


def curve_points(configurations: Sequence[Configuration], request: CurveRequest) -> pa.Table:
    """A row per task, backbone, method and adapted size; `Results.points` says what each column holds."""
    tasks_with_test = {c.task for c in configurations if c.test is not None}

    def split_of(task: str) -> str:
        return request.split or ("test" if task in tasks_with_test else "validation")

    def score_of(configuration: Configuration) -> SeedSummary | None:
        return configuration.test if split_of(configuration.task) == "test" else configuration.validation

    references: dict[tuple[str, str], float] = {}
    for (task, backbone, method), group in group_by(configurations, ["task", "backbone", "method"]).items():
        best = contenders(group)
        if method == request.normalize_to and best and (score := score_of(best[0])):
            references[task, backbone] = score.mean
    rows = []
    by_size = ["task", "backbone", "method", "trained_params_without_head"]
    for group in group_by(configurations, by_size).values():
        best = contenders(group)
        if best and (score := score_of(best[0])):
            reference = references.get((best[0].task, best[0].backbone))
            rows.append(_point(best[0], split_of(best[0].task), score, reference))
    names = method_names(methods_of(configurations))
    notes = gaps(configurations, [(row["task"], Method(row["backbone"], row["method"])) for row in rows])
    if without := without_reference(rows) if request.normalize_to else []:
        notes.append(f"{request.normalize_to}: no score to compare with on {', '.join(without)}")
    unknown = {Method(row["backbone"], row["method"]) for row in rows if row["trained_params"] is None}
    notes += [f"{names[method]}: its trained parameters are not recorded" for method in sorted(unknown)]
    return with_missing(pa.Table.from_pylist(rows, schema=_POINTS), notes)


def without_reference(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tasks of points that have nothing to subtract, with the backbone where there are several."""
    names = apart(point["backbone"] for point in points)
    found = {(point["task"], point["backbone"]) for point in points if point["reference"] is None}
    if not names:
        return sorted(task for task, _ in found)
    whole = set(names) - {point["backbone"] for point in points if point["reference"] is not None}
    some = [f"{task} ({names[backbone]})" for task, backbone in sorted(found) if backbone not in whole]
    return [*some, *(f"{names[backbone]} (every task)" for backbone in sorted(whole))]


def curve_percentiles(points: pa.Table, request: CurveRequest) -> pa.Table:
    """Percentiles across the tasks of each point; `Results.curve` says what each column holds."""
    value = "score" if request.normalize_to is None else "delta"
    groups: dict[tuple[str, str, int | None], list[dict[str, Any]]] = {}
    for point in points.to_pylist():
        if point[value] is not None:
            key = point["backbone"], point["method"], point["trained_params_without_head"]
            groups.setdefault(key, []).append(point)
    rows = []
    for key in sorted(groups, key=lambda k: (k[0], k[1], math.inf if k[2] is None else k[2])):
        group = groups[key]
        sizes = [point["trained_params"] for point in group if point["trained_params"] is not None]
        metrics = {point["metric"] for point in group}
        levels = percentiles([point[value] for point in group], request.quantiles)
        rows.append(
            {
                **dict(zip(("backbone", "method", "trained_params_without_head"), key, strict=True)),
                "trained_params": round(mean(sizes)) if sizes else None,
                "num_tasks": len(group),
                "num_tasks_on_validation": sum(point["split"] == "validation" for point in group),
                "num_seeds": min(point["num_seeds"] for point in group),
                "num_folds": wording.most_folds(point["num_folds"] for point in group),
                "metric": metrics.pop() if len(metrics) == 1 else None,
                "normalize_to": request.normalize_to,
                **dict(zip(map(quantile_column, request.quantiles), levels, strict=True)),
            }
        )
    return with_missing(pa.Table.from_pylist(rows, schema=_curve_schema(request.quantiles)), missing_of(points))


def _point(chosen: Configuration, split: str, score: SeedSummary, reference: float | None) -> dict[str, Any]:
    return {
        **{name: chosen.value(name) for name in _POINTS.names[:7]},
        "split": split,
        "score": score.mean,
        "score_sem": score.sem,
        "num_seeds": score.num_seeds,
        "num_folds": score.num_folds,
        "reference": reference,
        "delta": None if reference is None else gain(score.mean, reference, chosen.metric),
    }


def _curve_schema(quantiles: Sequence[float]) -> pa.Schema:
    return pa.schema(
        {
            "backbone": pa.string(),
            "method": pa.string(),
            "trained_params_without_head": pa.int64(),
            "trained_params": pa.int64(),
            "num_tasks": pa.int64(),
            "num_tasks_on_validation": pa.int64(),
            "num_seeds": pa.int64(),
            "num_folds": pa.int64(),
            "metric": pa.string(),
            "normalize_to": pa.string(),
            **{quantile_column(quantile): pa.float64() for quantile in quantiles},
        }
    )
