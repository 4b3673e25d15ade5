from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from orchestrator.store.rows import records_from_table, table_from_records
from orchestrator.store.schema import conform, unify, with_planned_hyperparameters
from tests.factories import measured_record
from trainables.config import HYPERPARAMETERS


def test_the_columns_have_the_order_that_scripts_rely_on():
    columns = table_from_records([measured_record(hyperparameters={"num_layers": 1, "adapter_size": 2})]).column_names
    before = ["sweep", "trial_id", "config_id", "task", "backbone", "method", "seed", "fold", "status"]
    options = ["adapter_size", "num_layers", *HYPERPARAMETERS]
    sizes = ["trained_params", "trained_params_without_head", "total_params"]
    scores = ["metric", "validation_score", "test_score", "best_epoch"]
    costs = ["duration_s", "examples_per_second", "pack_size", "peak_memory_bytes"]
    origin = ["started_at", "engine", "error", "provenance"]
    components = ["validation/accuracy", "validation/loss", "test/accuracy"]
    assert columns == [*before, *options, *sizes, *scores, *costs, *origin, *components, "schema_version", "epochs"]


def test_records_come_back_as_they_were():
    full = dict.fromkeys(HYPERPARAMETERS) | {"learning_rate": 1e-3, "num_epochs": 3, "precision": "fp32"}
    records = [
        measured_record("a", hyperparameters={**full, "adapter_size": 8, "placement": "houlsby", "skip": True}),
        measured_record("b", "failed", hyperparameters=full, error="Traceback ...", test={}, epochs=(), provenance={}),
        measured_record(
            "c", "pruned", hyperparameters={**full, "scale": 0.5}, test_score=None, provenance={"device": "cpu"}
        ),
        measured_record("d", hyperparameters=full, fold=3),
    ]
    assert records_from_table(table_from_records(records)) == records


def test_a_file_from_before_there_were_folds_reads_as_one_without():
    before = table_from_records([measured_record("a")]).drop_columns(["fold"])
    after = conform(before)
    assert after.schema.field("fold").type == pa.int64()
    assert records_from_table(after) == [measured_record("a")]


def test_scores_on_further_splits_are_columns_like_any_component():
    mnli = measured_record(
        "a", validation={"accuracy": 0.8, "mismatched_accuracy": 0.7}, test={"mismatched_accuracy": 0.6}
    )
    table = table_from_records([mnli, measured_record("b")])
    assert table["validation/mismatched_accuracy"].to_pylist() == [0.7, None]
    assert table["test/mismatched_accuracy"].to_pylist() == [0.6, None]
    assert dict(records_from_table(table)[0].validation) == mnli.validation


def test_what_was_not_measured_is_null():
    table = table_from_records([measured_record(test_score=None, total_params=None)])
    assert table["test_score"].to_pylist() == [None]
    assert table["total_params"].to_pylist() == [None]


def test_columns_without_a_value_have_the_type_their_name_asks_for():
    schema = table_from_records([measured_record(hyperparameters={"dropout": None, "odd_option": None})]).schema
    assert schema.field("dropout").type == pa.float64()
    assert schema.field("num_epochs").type == pa.int64()
    assert schema.field("odd_option").type == pa.string()


def test_segments_of_different_methods_become_one_table():
    adapter = table_from_records([measured_record("a", hyperparameters={"adapter_size": 8}, test={})])
    layers = table_from_records([measured_record("b", hyperparameters={"num_layers": 2}, provenance={"device": "cpu"})])
    table = unify([adapter, layers])
    assert table["adapter_size"].to_pylist() == [8, None]
    assert table["num_layers"].to_pylist() == [None, 2]
    assert table["test/accuracy"].to_pylist() == [None, 0.65]
    assert table["provenance"].to_pylist() == [
        {"commit": "abc", "device": None, "torch": "2.13.0"},
        {"commit": None, "device": "cpu", "torch": None},
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1, 0.5, [1.0, 0.5]),
        (None, 3, [None, 3]),
        ("auto", 3, ["auto", "3"]),
        (True, "maybe", ["true", "maybe"]),
        (True, None, [True, None]),
    ],
)
def test_an_option_of_mixed_kinds_is_promoted_the_same_in_one_segment_and_across_two(first, second, expected):
    records = [measured_record(str(i), hyperparameters={"option": value}) for i, value in enumerate((first, second))]
    together = table_from_records(records)
    assert together["option"].to_pylist() == expected
    assert unify([table_from_records([r]) for r in records]).equals(together)


def test_no_record_is_a_table_with_the_fixed_columns_and_types():
    empty, one = table_from_records([]), table_from_records([measured_record()])
    assert empty.num_rows == 0
    for field in empty.schema:
        if field.name != "provenance":
            assert one.schema.field(field.name).type == field.type, field.name


def test_a_hyperparameter_cannot_overwrite_another_column():
    with pytest.raises(ValueError, match="another column, but got status, test/accuracy"):
        table_from_records([measured_record(hyperparameters={"status": 1, "test/accuracy": 1.0})])


def test_fields_of_the_record_all_have_a_column():
    columns = set(table_from_records([measured_record()]).column_names)
    spread = {"hyperparameters", "validation", "test"}  # one column a key
    assert {field.name for field in dataclasses.fields(measured_record())} - spread <= columns


class TestPlannedHyperparameters:
    def test_a_table_without_rows_has_a_typed_column_for_each(self):
        planned = pa.table({"adapter_size": [2, 8], "placement": ["a", "b"], "gain": [0.5, 1.0], "dropout": [None] * 2})
        table = with_planned_hyperparameters(table_from_records([]), planned)
        kinds = {"adapter_size": pa.int64(), "placement": pa.string(), "gain": pa.float64(), "dropout": pa.float64()}
        assert {name: table.schema.field(name).type for name in kinds} == kinds
        options = ["adapter_size", "gain", "placement", *HYPERPARAMETERS]
        assert table.column_names[9 : 9 + len(options)] == options
        assert len(table) == 0

    def test_a_column_that_no_record_has_is_null(self):
        table = with_planned_hyperparameters(
            table_from_records([measured_record()]), pa.table({"num_layers": [1, 2, None]})
        )
        assert table["num_layers"].to_pylist() == [None]

    def test_types_are_those_that_hold_all_values(self):
        records = table_from_records([measured_record(hyperparameters={"scale": 1, "odd": 1, "flag": True})])
        planned = pa.table({"scale": [1, 0.5], "odd": ["x", "y"], "flag": [True, False]})
        table = with_planned_hyperparameters(records, planned)
        assert (table["scale"].type, table["scale"].to_pylist()) == (pa.float64(), [1.0])
        assert (table["odd"].type, table["odd"].to_pylist()) == (pa.string(), ["1"])
        assert table["flag"].type == pa.bool_()

    def test_what_is_planned_and_recorded_alike_changes_nothing(self):
        table = table_from_records(
            [measured_record(hyperparameters={"adapter_size": 8, "learning_rate": 1e-3, "odd": None})]
        )
        planned = pa.table({"learning_rate": [1e-3], "adapter_size": [8], "odd": pa.nulls(1), "duration_s": [1.0]})
        assert with_planned_hyperparameters(table, planned).equals(table)
