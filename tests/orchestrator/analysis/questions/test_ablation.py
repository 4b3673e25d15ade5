from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.analysis.questions.ablation import SCHEMA, conform, each, read, tabulate
from orchestrator.analysis.results import Results
from orchestrator.analysis.text.tables import ablation_table
from trainables.faults import FaultsError
from trainables.inference.ablation import AblatedSpan, Ablation

Ablated = Callable[..., pa.Table]


def test_a_span_has_a_row_with_its_change_from_the_whole_model(ablated: Ablated) -> None:
    rows = ablated(num_layers=4).to_pylist()
    assert [(row["first_layer"], row["last_layer"]) for row in rows] == [(i, j) for i in range(4) for j in range(i, 4)]
    (row,) = [row for row in rows if (row["first_layer"], row["last_layer"]) == (1, 3)]
    assert (row["task"], row["metric"], row["split"], row["num_layers"]) == (
        "glue/cola", "matthews_correlation", "validation", 4
    )  # fmt: skip
    assert row["setting"] == "adapter_size 2, learning_rate 0.0003, seed 0"
    assert (row["score"], row["whole_score"]) == (pytest.approx(0.404), 0.5)
    assert (row["accuracy"], row["whole_accuracy"]) == (pytest.approx(0.704), 0.8)
    assert row["score_difference"] == pytest.approx(-0.096)
    assert row["accuracy_difference"] == pytest.approx(-0.096)
    assert row["score_relative_change"] == pytest.approx(-0.192)
    assert row["accuracy_relative_change"] == pytest.approx(-0.12)
    assert row["validation/loss"] == pytest.approx(0.496)


def test_nothing_is_a_share_of_a_whole_model_that_scores_nothing() -> None:
    trial = dict.fromkeys(SCHEMA.names) | {"seed": 0}
    span = AblatedSpan(first_layer=0, last_layer=0, scores={"matthews_correlation": -0.1, "accuracy": 0.4})
    found = Ablation(
        metric="matthews_correlation",
        num_layers=1,
        whole={"matthews_correlation": 0.0, "accuracy": 0.5},
        spans=(span,),
    )
    (row,) = tabulate(found, trial, split="test", hyperparameters=[]).to_pylist()
    assert (row["score_difference"], row["score_relative_change"]) == (-0.1, None)
    assert row["accuracy_relative_change"] == pytest.approx(-0.2)
    assert row["setting"] == "seed 0"


def test_it_is_read_by_accuracy_and_where_there_is_none_by_the_score(ablated: Ablated) -> None:
    reading = read(ablated(num_layers=3))
    assert (reading.measure, reading.whole, reading.bare) == ("validation accuracy", 0.8, pytest.approx(0.752))
    assert reading.percent[0, 2] == pytest.approx(-6.0)
    assert np.isnan(reading.percent[np.tril_indices(3, -1)]).all()
    assert reading.sentence == (
        "With all adapters validation accuracy is 0.800, without any 0.752. "
        "Of single layers, layer 2 matters most (\N{MINUS SIGN}0.032)."
    )
    same = ablated(num_layers=3)
    same = same.set_column(same.column_names.index("accuracy"), "accuracy", pa.array([0.8] * len(same)))
    for name in ("accuracy_difference", "accuracy_relative_change"):
        same = same.set_column(same.column_names.index(name), name, pa.array([0.0] * len(same)))
    assert read(same).sentence.endswith("Without the adapters of any single layer it is no lower.")
    assert read(ablated(num_layers=3, metric="pearson")).measure == "validation pearson"


def test_results_give_all_ablations_or_one_trials(synthetic: Any, ablated: Ablated) -> None:
    one, other = ablated("glue/cola"), ablated("stsb", metric="pearson")
    results = synthetic.results([], ablations=pa.concat_tables([other, one], promote_options="default"))
    assert results.ablation().num_rows == 20
    assert results.ablation().column_names[: len(SCHEMA.names)] == SCHEMA.names
    assert results.ablation("t-stsb-0")["accuracy"].null_count == 10
    assert [table["task"][0].as_py() for table in each(results.ablation())] == ["glue/cola", "stsb"]
    with pytest.raises(FaultsError, match="unknown ablated trial 'none'"):
        results.ablation("none")


def test_without_ablations_there_is_an_empty_table(finished: Results) -> None:
    assert finished.ablation().schema.equals(SCHEMA)
    assert finished.ablation().num_rows == 0
    assert each(finished.ablation()) == []


def test_columns_that_are_missing_read_as_null_and_others_stay(ablated: Ablated) -> None:
    table = conform(ablated().drop_columns(["setting"]).append_column("new", pa.nulls(10)))
    assert table["setting"].null_count == 10
    assert table.column_names[-1] == "new"


def test_as_text_it_is_the_triangle_of_its_spans(ablated: Ablated) -> None:
    table = ablation_table(ablated(num_layers=3))
    assert table.right == ("to 0", "to 1", "to 2")
    assert table.rows == (
        ("0", "0.0", "\N{MINUS SIGN}2.0", "\N{MINUS SIGN}6.0"),
        ("1", "", "\N{MINUS SIGN}2.0", "\N{MINUS SIGN}6.0"),
        ("2", "", "", "\N{MINUS SIGN}4.0"),
    )


def test_what_is_only_a_part_of_an_ablation_is_left_out_with_a_warning(ablated, caplog) -> None:
    whole = ablated()
    table = conform(pa.concat_tables([whole, whole.slice(1)]))
    assert len(table) == 0
    assert "is no whole one and is left out" in caplog.text
    assert conform(whole).num_rows == whole.num_rows
