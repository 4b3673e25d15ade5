from __future__ import annotations

import sys
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest

from orchestrator.analysis import figures
from orchestrator.analysis.results import Results

PNG = b"\x89PNG\r\n\x1a\n"


def texts(figure: Any) -> set[str]:
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def test_the_curve_has_a_band_a_method_and_a_name_beside_it(finished: Results) -> None:
    figure = figures.curve_figure(finished.curve())
    (axes,) = figure.axes
    bands = [c for c in axes.collections if isinstance(c, matplotlib.collections.FillBetweenPolyCollection)]
    assert len(bands) == 2  # adapter and top_layers; the others have one size and an error bar
    assert {"adapter", "top layers", "layernorm", "full finetuning"} <= texts(figure)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()][1:5] == ["10k", "100k", "1M", "10M"]
    assert axes.get_ylabel() == "accuracy relative to full finetuning (points)"
    caption = "median and percentiles 20 to 80 across 4 tasks, mean over 3 seeds; 1 task scored on validation"
    assert caption in texts(figure)


def test_methods_on_several_backbones_stand_in_a_legend_each_with_a_shade_of_its_own(synthetic: Any) -> None:
    rows = [row for row in synthetic.rows(synthetic.tasks[:2]) if row["method"] in ("adapter", "layernorm")]
    ids = ("trial_id", "config_id")
    others = [{**row, "backbone": "/models/cut", **{name: f"o-{row[name]}" for name in ids}} for row in rows]
    figure = figures.curve_figure(synthetic.results([*rows, *others]).curve(normalize_to=None))
    (legend,) = figure.legends
    names = {"adapter on minilm", "adapter on cut", "layernorm on minilm", "layernorm on cut"}
    assert {text.get_text() for text in legend.get_texts()} == names
    assert len({line.get_color() for line in legend.legend_handles}) == len(names)


def test_deltas_are_drawn_in_points_and_scores_as_they_are(finished: Results) -> None:
    curve = finished.curve()
    row = curve.to_pylist()[0]
    (axes,) = figures.curve_figure(curve).axes
    drawn = [line for line in axes.lines if line.get_marker() == "o"]
    assert drawn[0].get_ydata()[0] == pytest.approx(100 * row["p50"])
    assert drawn[0].get_xdata()[0] == row["trained_params"]
    raw = finished.curve(normalize_to=None)
    (axes,) = figures.curve_figure(raw).axes
    drawn = [line for line in axes.lines if line.get_marker() == "o"]
    assert drawn[0].get_ydata()[0] == pytest.approx(raw["p50"][0].as_py())
    assert axes.get_ylabel() == "accuracy"


def test_names_cover_neither_each_other_nor_the_frame(finished: Results) -> None:
    figure = figures.curve_figure(finished.curve())
    names = {"adapter", "top layers", "layernorm", "full finetuning"}
    drawn = [text for text in figure.texts if text.get_text() in names]
    boxes = [text.get_window_extent() for text in drawn]
    frame = figure.axes[0].get_window_extent()
    assert len(boxes) == 4
    for index, box in enumerate(boxes):
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert frame.y0 - 1 <= box.y0 <= box.y1 <= frame.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_a_method_keeps_its_colour_from_figure_to_figure(finished: Results, synthetic: Any) -> None:
    def colour(results: Results, normalize_to: str | None) -> str:
        (axes,) = figures.curve_figure(results.curve(normalize_to=normalize_to)).axes
        return next(line.get_color() for line in axes.lines if line.get_marker() == "s")

    fewer = synthetic.results([row for row in synthetic.rows() if row["method"] in ("top_layers", "layernorm")])
    assert colour(finished, "full_finetuning") == colour(fewer, None)


def test_methods_of_a_newcomer_get_colours_of_their_own(synthetic: Any) -> None:
    rows = [
        {**row, "method": f"new-{i}", "config_id": f"{row['config_id']}{i}", "trial_id": f"{row['trial_id']}{i}"}
        for i in range(3)
        for row in synthetic.rows(synthetic.tasks[:1])
        if row["method"] == "top_layers"
    ]
    (axes,) = figures.curve_figure(synthetic.results(rows).curve(normalize_to=None)).axes
    assert len({line.get_color() for line in axes.lines}) == 3


def test_every_task_has_a_panel_that_says_what_was_scored(finished: Results) -> None:
    figure = figures.tasks_figure(finished.points())
    assert [axes.get_title(loc="left") for axes in figure.axes] == finished.recommend()["task"].to_pylist()
    assert {"test accuracy", "validation accuracy"} <= texts(figure)


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.thorough
def test_equal_figures_are_equal_files(finished: Results, kind: Any) -> None:
    one, two = (figures.render(figures.curve_figure(finished.curve()), kind) for _ in range(2))
    assert one == two
    if kind == "png":
        assert one.startswith(PNG)
    else:
        assert ElementTree.fromstring(one).tag.endswith("svg")


def test_no_figure_touches_pyplot_or_the_style_of_the_caller(
    finished: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def style() -> dict[str, Any]:
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    before = style()
    figures.render(figures.tasks_figure(finished.points()), "png")
    assert style() == before


@pytest.mark.parametrize("rows", [0, 1])
def test_a_sweep_with_hardly_anything_in_it_can_be_drawn(synthetic: Any, rows: int) -> None:
    results = synthetic.results(synthetic.rows()[:rows])
    assert figures.render(figures.curve_figure(results.curve(normalize_to=None)), "png").startswith(PNG)
    assert figures.render(figures.tasks_figure(results.points(normalize_to=None)), "png").startswith(PNG)
