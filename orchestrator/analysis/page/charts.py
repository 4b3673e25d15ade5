"""The charts of the page, as Vega-Lite and rows. What their fields are called is fixed; names from stores are data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.page.blocks import Axis, Chart
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import shortened

Row = dict[str, Any]
Names = Mapping[str, str]  # what each backbone is called; empty where there is one
_NAME = 34  # characters of a series that a legend has room for
_PANEL = 30  # of a task, above its panel
_PARAMS = "trained parameters"


def name_series(rows: Sequence[Row], *, backbones: Names) -> tuple[list[str], dict[str, str]]:
    """The series of each row (its method, with its backbone where there are several), and the method of each series."""
    full = [wording.method(row, backbones=backbones) for row in rows]
    order = sorted(set(full))
    short = shortened(order, _NAME)
    methods = {name: str(row["method"]) for name, row in zip(full, rows, strict=True)}
    return [short[name] for name in full], {short[name]: methods[name] for name in order}


def curve_chart(
    points: pa.Table, quantiles: tuple[float, float, float], *, picture: str | None, backbones: Names | None = None
) -> Chart:
    """Percentiles across tasks against trained parameters, from `Results.points`, taken again for the tasks chosen.

    The browser interpolates linearly (type 7 of Hyndman and Fan), as `Results.curve` does.
    """
    backbones = backbone_names(points) if backbones is None else backbones
    relative = points["delta"].null_count < len(points)
    rows, value = points.to_pylist(), "delta" if relative else "score"
    rows = [row for row in rows if row["trained_params"] and row[value] is not None]
    series, methods = name_series(rows, backbones=backbones)
    scale = 100.0 if relative else 1.0
    data = [
        {
            "task": row["task"],
            **_backbone(row, backbones),
            "method": row["method"],
            "series": name,
            "adapted": row["trained_params_without_head"],
            "params": row["trained_params"],
            "value": round(scale * row[value], 5),
            "score": round(row["score"], 5),
        }
        for row, name in zip(rows, series, strict=True)
    ]
    reference = "points above or below full fine-tuning" if relative else "score"
    low, mid, high = quantiles
    percentiles = [
        {"joinaggregate": [{"op": "mean", "field": "params", "as": "x"}], "groupby": ["series", "adapted"]},
        {"quantile": "value", "probs": [low, mid, high], "groupby": ["series", "x"], "as": ["prob", "level"]},
        {"calculate": f"datum.prob < {mid} ? 'low' : datum.prob > {mid} ? 'high' : 'middle'", "as": "which"},
        {"pivot": "which", "value": "level", "groupby": ["series", "x"]},
    ]
    x = _x(Axis(field="x", title=_PARAMS, is_log=True))
    y = {"type": "quantitative", "title": reference, "scale": {"zero": False}, "axis": {"grid": True}}
    spoken = [
        {"field": "series", "title": "method"},
        {"field": "x", "title": _PARAMS, "format": ",.0f"},
        *(
            {"field": f, "title": f"percentile {100 * q:g}", "format": ".3f"}
            for f, q in zip(_BAND, quantiles, strict=True)
        ),
    ]
    color = {"field": "series", "type": "nominal"}
    alone = [{"joinaggregate": [{"op": "count", "as": "sizes"}], "groupby": ["series"]}, {"filter": "datum.sizes == 1"}]
    band = {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}, "color": color}
    layers: list[dict[str, Any]] = [
        {"transform": percentiles, "mark": {"type": "area", "opacity": 0.16}, "encoding": band},
        {"transform": [*percentiles, *alone], "mark": {"type": "rule", "strokeWidth": 1.6}, "encoding": band},
        {
            "mark": {"type": "point", "filled": True, "size": 16, "opacity": 0.4},
            "encoding": {
                "x": {**x, "field": "params"},
                "y": {"field": "value", **y},
                "color": color,
                "tooltip": [
                    {"field": "task"},
                    {"field": "series", "title": "method"},
                    {"field": "params", "title": _PARAMS, "format": ",.0f"},
                    {"field": "value", "title": reference, "format": ".3f"},
                    {"field": "score", "format": ".4f"},
                ],
            },
        },
        {
            "transform": percentiles,
            "mark": {"type": "line", "strokeWidth": 2.2},
            "encoding": {"x": x, "y": {"field": "middle", **y}, "color": color},
        },
        {
            "transform": percentiles,
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {
                "x": x, "y": {"field": "middle", **y}, "color": color, "tooltip": spoken,
                "shape": {"field": "series", "type": "nominal"},
            },
        },
    ]  # fmt: skip
    if relative:
        rule = {"type": "rule", "strokeDash": [4, 3], "opacity": 0.6}
        layers.insert(0, {"mark": rule, "encoding": {"y": {"datum": 0, **y}}})
    return Chart(
        spec={"height": 380, "layer": layers},
        rows=data,
        series=methods,
        alt="Percentiles across tasks of the score against trained parameters, a curve a method; a dot a task",
        file="curve",
        picture=picture,
        caption=f"Lines: the median across the tasks chosen above; bands: percentiles {100 * low:g} to {100 * high:g}; "
        "small dots: single tasks. For each task, method and size the best configuration on validation.",
    )


_BAND = ("low", "middle", "high")


def tasks_chart(points: pa.Table, *, picture: str | None, backbones: Names | None = None) -> Chart:
    """A panel a task: the mean score over seeds with its standard error, from `Results.points`."""
    backbones = backbone_names(points) if backbones is None else backbones
    rows = [row for row in points.to_pylist() if row["trained_params"]]
    series, methods = name_series(rows, backbones=backbones)
    panels = shortened(sorted({row["task"] for row in rows}), _PANEL)
    places = {task: place for place, task in enumerate(panels)}
    data = [
        {
            "task": row["task"],
            **_backbone(row, backbones),
            "method": row["method"],
            "panel": panels[row["task"]],
            "place": places[row["task"]],
            "series": name,
            "params": row["trained_params"],
            "score": round(row["score"], 5),
            **_bar(row["score"], row["score_sem"]),
            "seeds": row["num_seeds"],
            "measure": f"{row['split']} {(row['metric'] or 'score').replace('_', ' ')}",
        }
        for row, name in zip(rows, series, strict=True)
    ]
    x = _x(Axis(field="params", title=_PARAMS, is_log=True))
    spoken = [
        {"field": "task"},
        {"field": "series", "title": "method"},
        {"field": "params", "title": _PARAMS, "format": ",.0f"},
        {"field": "measure", "title": "measured"},
        {"field": "score", "format": ".4f"},
        {"field": "sem", "title": "standard error", "format": ".4f"},
        {"field": "seeds"},
    ]
    return Chart(
        spec=_panels(x, spoken, lines=True),
        rows=data,
        series=methods,
        alt="Mean score and standard error against trained parameters, a panel a task",
        file="curve",
        picture=picture,
        caption="The best configuration of each size on validation; bars are one standard error of the mean.",
    )


def settings_chart(settings: pa.Table, searched: Sequence[str], backbones: Names | None = None) -> Chart:
    """Every setting that completed, a panel a task, against what it costs or any searched hyperparameter."""
    backbones = backbone_names(settings) if backbones is None else backbones
    rows = settings.to_pylist()
    series, methods = name_series(rows, backbones=backbones)
    panels = shortened(sorted({row["task"] for row in rows}), _PANEL)
    places = {task: place for place, task in enumerate(panels)}
    fields = {name: f"h{number}" for number, name in enumerate(searched)}
    data = [
        {
            "task": row["task"],
            **_backbone(row, backbones),
            "method": row["method"],
            "panel": panels[row["task"]],
            "place": places[row["task"]],
            "series": name,
            "params": row["trained_params"],
            "seconds": _rounded(row["engine_seconds_per_trial"]),
            "score": round(row["validation_mean"], 5),
            **_bar(row["validation_mean"], row["validation_sem"]),
            "test": None if row["test_mean"] is None else round(row["test_mean"], 5),
            "seeds": row["num_seeds"],
            "setting": wording.hyperparameters(row, searched),
            **{field: _plain(row[hyperparameter]) for hyperparameter, field in fields.items()},
        }
        for row, name in zip(rows, series, strict=True)
    ]
    axes = [
        Axis(field="params", title=_PARAMS, is_log=True),
        Axis(field="seconds", title="engine seconds a trial", is_log=True),
        *(
            _axis(field, hyperparameter, [row[hyperparameter] for row in rows])
            for hyperparameter, field in fields.items()
        ),
    ]
    spoken = [
        {"field": "task"},
        {"field": "series", "title": "method"},
        {"field": "setting"},
        {"field": "params", "title": _PARAMS, "format": ",.0f"},
        {"field": "seconds", "title": "engine seconds a trial", "format": ".3~s"},
        {"field": "score", "title": "validation", "format": ".4f"},
        {"field": "test", "format": ".4f"},
        {"field": "seeds"},
    ]
    return Chart(
        spec=_panels(_x(axes[0]), spoken, lines=False),
        rows=data,
        series=methods,
        axes=axes,
        alt="Mean validation score of every setting tried, a panel a task",
        file="settings",
        caption="Each dot is one configuration: its mean validation score over seeds with one standard error.",
    )


def _panels(x: Mapping[str, Any], spoken: Sequence[Mapping[str, Any]], *, lines: bool) -> dict[str, Any]:
    y = {"field": "score", "type": "quantitative", "title": None, "scale": {"zero": False, "nice": True}}
    color = {"field": "series", "type": "nominal"}
    shape = {"field": "series", "type": "nominal"}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.7},
            "encoding": {"x": x, "y": {**y, "field": "below"}, "y2": {"field": "above"}, "color": color},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 42, "opacity": 0.9},
            "encoding": {"x": x, "y": y, "color": color, "shape": shape, "tooltip": list(spoken)},
        },
    ]
    if lines:
        line = {"mark": {"type": "line", "strokeWidth": 1.6}, "encoding": {"x": x, "y": y, "color": color}}
        layers.insert(1, line)
    return {
        # In the order of the tasks, by a number: what is shown of their names may have another order.
        "facet": {"field": "panel", "type": "nominal", "title": None, "sort": {"field": "place", "op": "min"}},
        "spec": {"height": 170, "layer": layers},
        "resolve": {"scale": {"y": "independent"}},
    }


def _x(axis: Axis) -> dict[str, Any]:
    if not axis.is_number:
        return {"field": axis.field, "type": "nominal", "title": axis.title}
    scale = {"type": "log"} if axis.is_log else {"zero": False}
    return {"field": axis.field, "type": "quantitative", "title": axis.title, "scale": scale}


def _axis(field: str, name: str, values: Sequence[Any]) -> Axis:
    known = [value for value in values if value is not None]
    numbers = bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    wide = numbers and min(known) > 0 and max(known) / min(known) >= 8
    return Axis(field=field, title=shortened([name], _NAME)[name], is_number=numbers, is_log=wide)


def _backbone(row: Row, backbones: Names) -> Row:
    """What a reader filters a row by, where there are several."""
    return {"backbone": backbones.get(row["backbone"], row["backbone"])} if backbones else {}


def _bar(mean: float, sem: float | None) -> Row:
    """The ends of an error bar of one standard error; without one it has no length."""
    return {"sem": _rounded(sem), "below": round(mean - (sem or 0.0), 5), "above": round(mean + (sem or 0.0), 5)}


def _plain(value: Any) -> Any:
    return value if value is None or (isinstance(value, int | float) and not isinstance(value, bool)) else str(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
