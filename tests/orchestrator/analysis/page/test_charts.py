from __future__ import annotations

import re
from typing import Any

import pytest
import vl_convert

from orchestrator.analysis.page.blocks import Chart
from orchestrator.analysis.page.charts import curve_chart, settings_chart, tasks_chart
from orchestrator.analysis.palette import looks, turned
from orchestrator.analysis.questions.settings import settings
from orchestrator.analysis.results import Results


def spoken(chart: Chart) -> list[dict[str, str]]:
    """What the drawn chart says of each of its marks, by field."""
    drawn = vl_convert.vegalite_to_svg({**chart.spec, "width": 400, "data": {"values": [*chart.rows]}})
    labels = re.findall(r'aria-label="([^"]*)"', drawn)
    return [dict(part.split(": ", 1) for part in label.split("; ") if ": " in part) for label in labels]


def number(text: str) -> float:
    return float(text.replace(",", "").replace("\N{MINUS SIGN}", "-"))


def test_the_browser_takes_the_percentiles_that_results_give(finished: Results) -> None:
    drawn = {
        (said["method"], round(number(said["trained parameters"]))): [
            number(said[f"percentile {q}"]) for q in (20, 50, 80)
        ]
        for said in spoken(curve_chart(finished.points(), (0.2, 0.5, 0.8), picture=None))
        if "percentile 20" in said and "method" in said
    }
    expected = {
        (row["method"], row["trained_params"]): [100 * row[name] for name in ("p20", "p50", "p80")]
        for row in finished.curve().to_pylist()
    }
    assert set(drawn) == set(expected)
    for key, values in expected.items():
        assert drawn[key] == pytest.approx(values, abs=6e-4)


def test_every_setting_is_drawn_and_says_what_it_took(finished: Results) -> None:
    tried = settings(finished)
    chart = settings_chart(tried, finished.searched())
    assert len(chart.rows) == len(tried) == 48
    assert tried["engine_seconds"].null_count == 0
    drawn = [said for said in spoken(chart) if "engine seconds a trial" in said]
    assert len(drawn) == 48


def test_axes_are_logarithmic_where_values_span_so_much(finished: Results) -> None:
    axes = {axis.title: axis.is_log for axis in settings_chart(settings(finished), finished.searched()).axes}
    assert axes == {
        "trained parameters": True,
        "engine seconds a trial": True,
        "adapter_size": True,
        "num_layers": False,
        "learning_rate": True,
    }


def test_long_names_are_shortened_in_the_middle_and_told_apart(synthetic: Any) -> None:
    names = [f"a_very_long_name_of_a_task_in_which_{middle}_stands_in_the_middle" for middle in "ab"]
    rows = [
        row for name in names for row in synthetic.scored({"method": "layernorm", "learning_rate": 1.0}, [0.5], name)
    ]
    chart = tasks_chart(synthetic.results(rows).points(normalize_to=None), picture=None)
    panels = {row["panel"] for row in chart.rows}
    assert len(panels) == 2
    assert all(len(panel) <= 30 and "…" in panel for panel in panels)
    assert {row["task"] for row in chart.rows} == set(names)


def test_many_methods_have_looks_of_their_own() -> None:
    found = looks([*(f"method_{number}" for number in range(20)), "adapter", "full_finetuning"])
    assert len({(look.light, look.shape) for look in found.values()}) == 22
    assert len({(look.dark, look.shape) for look in found.values()}) == 22
    assert found["adapter"] == looks(["adapter"])["adapter"]
    assert turned("circle", 8) == "circle" != turned("circle", 1)


def test_panels_are_in_the_order_of_the_tasks_whatever_is_shown_of_their_names(synthetic: Any) -> None:
    tasks = [f"a-task-with-a-really-quite-long-name-{number}-as-folders-have" for number in range(2)] + ["b"]
    options = {"method": "layernorm", "learning_rate": 1e-3}
    results = synthetic.results([row for task in tasks for row in synthetic.scored(options, [0.8, 0.9], task=task)])
    chart = tasks_chart(results.points(None), picture=None)
    drawn = vl_convert.vegalite_to_svg({**chart.spec, "width": 400, "data": {"values": [*chart.rows]}})
    panels = list(dict.fromkeys(row["panel"] for row in chart.rows))
    assert len(panels) == 3
    places = [drawn.index(f">{panel}<") for panel in panels]
    assert places == sorted(places)
