from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pyarrow as pa
import pytest

from orchestrator.analysis import figures
from trainables.faults import FaultsError

Ablated = Callable[..., pa.Table]


def cells(figure: Any) -> list[Any]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, matplotlib.patches.Rectangle)]


def texts(figure: Any) -> set[str]:
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


@pytest.mark.parametrize("num_layers", [1, 6, 12, 24])
def test_every_span_has_a_cell_and_up_to_twelve_layers_a_number(ablated: Ablated, num_layers: int) -> None:
    figure = figures.ablation_figure(ablated(num_layers=num_layers))
    assert len(cells(figure)) == num_layers * (num_layers + 1) // 2
    numbers = [text for text in figure.axes[0].texts if text.get_ha() == "center"]
    assert len(numbers) == (len(cells(figure)) if num_layers <= 12 else 0)


def test_the_first_ablated_layer_goes_down_and_the_last_one_across(ablated: Ablated) -> None:
    figure = figures.ablation_figure(ablated(num_layers=3))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("last ablated layer", "first ablated layer")
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    numbers = {text.get_position(): text.get_text() for text in axes.texts if text.get_ha() == "center"}
    assert numbers == {
        (0, 0): "0.0",
        (1, 0): "\N{MINUS SIGN}2.0",
        (2, 0): "\N{MINUS SIGN}6.0",
        (1, 1): "\N{MINUS SIGN}2.0",
        (2, 1): "\N{MINUS SIGN}6.0",
        (2, 2): "\N{MINUS SIGN}4.0",
    }


def test_it_names_the_task_the_setting_the_trial_and_what_was_measured(ablated: Ablated) -> None:
    shown = "\n".join(texts(figures.ablation_figure(ablated())))
    for part in (
        "glue/cola: adapter, adapter_size 2, learning_rate 0.0003, seed 0",
        "trial t-glue/cola-0",
        "relative change of validation accuracy (%)",
        "with all adapters  0.800",
        "without any  0.704",
    ):
        assert part in shown


def test_equal_changes_are_equally_strong_and_the_scale_shows_what_occurs(ablated: Ablated) -> None:
    figure = figures.ablation_figure(ablated(num_layers=4))
    colours = {cell.get_xy(): cell.get_facecolor() for cell in cells(figure)}
    assert colours[0.5, -0.5] == colours[0.5, 0.5]  # taking out layer 0 costs nothing
    assert min(colours[-0.5, -0.5]) > 0.99  # and is white
    low, high = figure.axes[1].get_ylim()
    assert (low, high) == (pytest.approx(-12.0), 0.0)


def test_what_has_no_share_of_the_whole_model_is_a_dash(ablated: Ablated) -> None:
    table = ablated(num_layers=2, metric="pearson")
    index = table.column_names.index("score_relative_change")
    table = table.set_column(index, "score_relative_change", pa.nulls(3, pa.float64()))
    figure = figures.ablation_figure(table)
    assert [text.get_text() for text in figure.axes[0].texts if text.get_ha() == "center"] == ["\N{EN DASH}"] * 3


def test_equal_heat_maps_are_equal_files(ablated: Ablated) -> None:
    one, two = (figures.render(figures.ablation_figure(ablated()), "svg") for _ in range(2))
    assert one == two
    assert ElementTree.fromstring(one).tag.endswith("svg")


def test_it_shows_one_ablation_and_not_none_or_several(ablated: Ablated, synthetic: Any) -> None:
    both = pa.concat_tables([ablated(), ablated("trec")])
    with pytest.raises(FaultsError, match="but got 2; name one with trial_id"):
        synthetic.results(synthetic.rows(), ablations=both).draw("ablation")
    with pytest.raises(FaultsError, match="no trial has been ablated"):
        synthetic.results([]).draw("ablation")
    one = both["trial_id"][0].as_py()
    assert synthetic.results(synthetic.rows(), ablations=both).draw("ablation", trial_id=one)
