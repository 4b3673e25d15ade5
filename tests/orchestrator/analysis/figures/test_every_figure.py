"""What every figure must do, with as many tasks and methods as a paper has, with few, with gaps and with nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from orchestrator.analysis import figures
from orchestrator.analysis.figures.board import NOTHING
from orchestrator.analysis.figures.looks import looks_of
from orchestrator.analysis.figures.text import fitted, folded, shortened, width_of
from orchestrator.analysis.missing import missing_of, with_missing
from orchestrator.analysis.results import Results
from tests.orchestrator.analysis.large_sweep import SIZES, TASKS, large_results, large_rows
from trainables.faults import FaultsError
from trainables.methods import method_names

STORES: dict[str, Callable[[], Results]] = {
    "large": lambda: large_results(large_rows(seeds=(0, 1))),
    "one task, two methods": lambda: large_results(large_rows(TASKS[4:5], ("adapter", "full_finetuning"), (0, 1))),
    "gaps": lambda: large_results(
        [
            row
            for row in large_rows(TASKS[:3], ("adapter", "full_finetuning", "lora"), seeds=(0, 1))
            if (row["task"], row["method"]) != ("glue/cola", "lora")
        ]
    ),
    "one trial": lambda: large_results(large_rows(TASKS[4:5], ("adapter",), seeds=(0,))[:1]),
    "nothing": lambda: large_results([]),
}
NAMES = [name for name in figures.FIGURES if name != "ablation"]


@cache
def results_of(store: str) -> Results:
    return STORES[store]()


@cache
def drawn(store: str, name: str) -> Any:
    results = results_of(store)
    has_reference = "full_finetuning" in results.trials()["method"].to_pylist()
    arguments = {} if has_reference or name not in ("curve", "tasks") else {"normalize_to": None}
    return results.draw(name, **arguments)


def seen(texts: Iterable[Any], renderer: Any) -> list[tuple[str, Any]]:
    """Those texts that are shown, with their places in pixels."""
    shown = [text for text in texts if text.get_text().strip() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


def ticks(axis: Any) -> list[Any]:
    """The labels of an axis' ticks, but for those beyond its limits, which are not shown."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.thinned
def test_all_text_is_on_the_sheet_and_covers_no_other(store: str, name: str) -> None:
    figure = drawn(store, name)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # what is looked at is where everything is
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in filter(Axes.get_visible, figure.axes):
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        if axes.axison:
            texts += [*ticks(axes.xaxis), *ticks(axes.yaxis)]
    shown = seen(texts, renderer)
    for text, box in shown:
        assert figure.bbox.padded(1).contains(box.x0, box.y0), text
        assert figure.bbox.padded(1).contains(box.x1, box.y1), text
    for (one, first), (two, second) in itertools.combinations(shown, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (one, two)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_what_is_missing(name: str) -> None:
    table = getattr(results_of("gaps"), figures.FIGURES[name].asks)()
    said = " ".join(" ".join(text.get_text() for text in drawn("gaps", name).texts).split())
    for note in missing_of(table):
        assert note in said
    if name not in ("slices", "parallel_coordinates", "importance", "pareto"):  # which need no method on every task
        assert "lora: no completed trial on glue/cola" in said


@pytest.mark.parametrize("name", NAMES)
def test_of_an_empty_sweep_a_figure_says_so(name: str) -> None:
    assert NOTHING in " ".join(text.get_text() for text in drawn("nothing", name).texts)


@pytest.mark.parametrize("name", ["learning_curves", "robustness", "pareto", "expected_validation", "tasks"])
@pytest.mark.thinned(2)
def test_every_task_has_a_panel_and_every_method_an_entry(name: str) -> None:
    figure = drawn("large", name)
    assert len(figure.axes) == len(TASKS)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert {"glue/cola", "trec", "sms_spam"} <= set(titles)
    assert any("\N{HORIZONTAL ELLIPSIS}" in title for title in titles), "long names are cut in the middle"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == sorted(method.replace("_", " ") for method in SIZES)


def test_a_method_has_the_same_colour_in_all_figures() -> None:
    colors = set()
    for name in ("learning_curves", "robustness", "pareto", "expected_validation", "tasks", "profile", "slices"):
        (legend,) = drawn("large", name).legends
        entries = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
        colors.add((entries["lora"].get_color(), entries["lora"].get_marker()))
        few = drawn("gaps", name).legends[0] if drawn("gaps", name).legends else legend
        entries = {text.get_text(): line for text, line in zip(few.get_texts(), few.get_lines(), strict=True)}
        colors.add((entries["lora"].get_color(), entries["lora"].get_marker()))
    assert len(colors) == 1


def test_every_known_method_has_a_look_of_its_own() -> None:
    looks = looks_of({"method": name, "backbone": "minilm"} for name in method_names())
    assert len({(look.color, look.marker) for look in looks.values()}) == len(method_names())
    assert len({look.marker for look in looks.values()}) == len(method_names())


def test_the_forest_has_a_row_a_method_with_its_numbers() -> None:
    said = {text.get_text() for axes in drawn("large", "forest").axes for text in axes.texts}
    overall = [row for row in results_of("large").paired_differences().to_pylist() if row["task"] is None]
    assert len(overall) == len(SIZES) - 1
    for row in overall:
        assert row["method"].replace("_", " ") in said
        shown = f"{100 * row['difference']:+.1f} [".replace("-", "\N{MINUS SIGN}")
        assert any(text.startswith(shown) for text in said), shown


def test_the_diagram_orders_methods_by_rank_and_joins_those_not_told_apart() -> None:
    from orchestrator.analysis.figures.critical_difference import groups_of

    rows = [
        {"backbone": "b", "method": name, "not_told_apart_from": alike}
        for name, alike in (("a", ["b"]), ("b", ["a", "c"]), ("c", ["b"]), ("d", []))
    ]
    assert groups_of(rows) == [(0, 1), (1, 2)]


def test_names_of_others_are_text_and_nothing_else() -> None:
    name = "a$b$_{x}\x1b[2J" + "long " * 30
    rows = [{**row, "task": name} for row in large_rows(TASKS[4:5], ("adapter", "lora"))]
    for figure in ("learning_curves", "forest", "robustness"):
        drawing = large_results(rows).draw(figure)
        said = [text.get_text() for text in drawing.findobj(matplotlib.text.Text)]
        assert any("a$b$_{x}" in text for text in said), figure
        assert not any("\x1b" in text for text in said)


@pytest.mark.parametrize("kind", figures.KINDS)
def test_equal_tables_are_equal_files(kind: Any) -> None:
    one, two = (figures.render(results_of("gaps").draw("forest"), kind) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("methods", [("adapter", "linear_probe", "lora"), ("linear_probe",)])
def test_what_trains_nothing_but_its_head_is_drawn_at_zero(methods: tuple[str, ...]) -> None:
    results = large_results(large_rows(TASKS[4:5], methods))
    rows = results.trade_off("trained_params_without_head").to_pylist()
    figure = results.draw("pareto", cost="trained_params_without_head")
    (axes,) = figure.axes
    dots = [dot for line in axes.lines if line.get_linestyle() == "None" for dot in zip(*line.get_data(), strict=True)]
    assert sorted(dots) == sorted((row["cost"], row["validation_mean"]) for row in rows)
    assert min(dots)[0] == 0
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert low < 0 < high
    assert "0" in [tick.get_text() for tick in ticks(axes.xaxis)]


def test_an_unknown_figure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FaultsError, match="forest"):
        large_results([]).draw("forrest")


def test_words_are_cut_and_folded_to_fit() -> None:
    assert shortened("crowdflower/us_economic", 11) == "crowd\N{HORIZONTAL ELLIPSIS}nomic"
    assert shortened("short", 11) == "short"
    assert width_of(fitted("a very long name of a task indeed", 1.0, 9), 9) <= 1.0
    lines = folded("some words that go on for a while and then some more", 1.5, 9)
    assert len(lines) > 1
    assert all(width_of(line, 9) <= 1.5 for line in lines)


def test_many_notes_are_counted() -> None:
    from orchestrator.analysis.figures.forest import forest_figure

    table = with_missing(results_of("gaps").paired_differences(), [f"note {number}" for number in range(40)])
    said = " ".join(text.get_text() for text in forest_figure(table).texts)
    assert "and 33 more, in the table" in said


@pytest.mark.parametrize("name", ["tasks", "pareto", "forest"])
def test_tasks_that_differ_in_their_middle_are_told_apart(name: str) -> None:
    tasks = [f"a-task-with-a-really-quite-long-name-{number}-as-folders-have" for number in range(2)]
    rows = [{**row, "task": task} for task in tasks for row in large_rows(TASKS[:1], ("adapter", "full_finetuning"))]
    rows = [{**r, **{key: f"{r['task']}{r[key]}" for key in ("config_id", "trial_id")}} for r in rows]
    figure = large_results(rows).draw(name)
    texts = [axes._left_title.get_text() for axes in figure.axes] + [t.get_text() for a in figure.axes for t in a.texts]
    named = [text for text in texts if "as-folders" in text]
    assert sorted(named) == sorted(set(named))
    assert len(named) == 2


@pytest.mark.filterwarnings("error")
def test_names_of_other_scripts_and_of_two_lines_take_one_line_and_warn_of_nothing() -> None:
    rows = [{**row, "task": "\u65e5\u672c\nb\tc"} for row in large_rows(TASKS[:1], ("adapter", "full_finetuning"))]
    figure = large_results(rows).draw("tasks")
    assert [axes._left_title.get_text() for axes in figure.axes] == ["\u65e5\u672c b c"]
    assert figures.render(figure, "png")
