"""The picture of the forgetting matrix: its numbers, and colours that say what has changed."""

from __future__ import annotations

import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from orchestrator.analysis.figures import forgetting_figure, render
from orchestrator.analysis.sequences import CELLS, SequenceResults


def results(num_tasks: int, *, seeds: int = 2, name: str = "task") -> SequenceResults:
    """A method whose scores fall by 0.1 with every later task, beside one whose scores stay."""
    cells = [
        {
            "method": method,
            "is_sequential": loss > 0,
            "seed": seed,
            "after": after,
            "after_task": f"{name}_{after}",
            "place": place,
            "task": f"{name}_{place}",
            "split": "test",
            "metric": "accuracy",
            "score": 0.9 + 0.02 * seed - loss * (after - place),
            "outputs_sha256": f"{place}{after if loss else ''}",
        }
        for method, loss in (("adapter", 0.0), ("full_finetuning", 0.1))
        for seed in range(seeds)
        for after in range(1, num_tasks + 1)
        for place in range(1, after + 1)
    ]
    return SequenceResults(pa.Table.from_pylist(cells, schema=CELLS))


def drawn(found: SequenceResults) -> Figure:
    return forgetting_figure(found.matrix(), found.measures())


def test_numbers_are_points_and_colours_are_changes() -> None:
    first, second, _ = drawn(results(3)).axes
    for axes, at_the_end in ((first, "91.0"), (second, "71.0")):
        cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        colours = {patch.get_xy(): to_hex(patch.get_facecolor()) for patch in cells}
        assert len(cells) == 6
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert written[0, 1.9] == at_the_end  # the first task after the third
        assert written[0, 2.24] == "± 1.0"
        is_new = colours[-0.5, -0.5]
        assert min(to_rgb(is_new)) > 0.97  # nothing has changed yet
        assert (colours[-0.5, 1.5] == is_new) is (axes is first)
    said = " ".join(text.get_text().replace("\n", " ") for axes in (first, second) for text in axes.texts)
    assert "its own weights for each task: 91.0 ± 1.0 at the end, forgetting 0.0 ± 0.0" in said
    assert "one model: 81.0 ± 1.0 at the end, forgetting 15.0 ± 0.0" in said


@pytest.mark.parametrize(
    ("num_tasks", "seeds", "name"), [(2, 1, "t"), (5, 3, "a_rather_long_name_of_a_task"), (14, 1, "<b>$x$")]
)
def test_any_number_of_tasks_is_drawn_within_the_page(num_tasks: int, seeds: int, name: str) -> None:
    figure = drawn(results(num_tasks, seeds=seeds, name=name))
    assert render(figure, "png") == render(drawn(results(num_tasks, seeds=seeds, name=name)), "png")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        labels = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
        for text in labels:
            box = text.get_window_extent(renderer)
            assert not text.get_text() or (box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height)


def test_a_matrix_that_is_not_complete_has_no_measures_and_is_drawn() -> None:
    whole = results(3)
    cells = whole.cells().slice(0, 5)
    found = SequenceResults(cells, pa.Table.from_pylist([{"place": 3}]))
    assert len(found.measures()) == 0
    assert len(drawn(found).axes) == 2
