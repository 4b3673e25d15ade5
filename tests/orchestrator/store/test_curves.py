from __future__ import annotations

import dataclasses

from orchestrator.store.curves import epochs_table
from orchestrator.store.rows import table_from_records
from tests.factories import measured_record


def test_a_curve_has_a_row_per_trial_and_epoch():
    one, other = measured_record("a"), measured_record("b")
    f1 = dataclasses.replace(other.epochs[0], validation={"f1": 0.3, "loss": 2.0})
    table = epochs_table(
        table_from_records([one, measured_record("none", epochs=()), dataclasses.replace(other, epochs=(f1,))])
    )
    assert table.column_names == [
        *("sweep", "trial_id", "config_id", "task", "method", "seed", "fold", "epoch", "step", "train/loss"),
        *("validation_score", "validation/accuracy", "validation/f1", "validation/loss", "duration_s"),
    ]
    assert table["trial_id"].to_pylist() == ["a", "a", "b"]
    assert table["epoch"].to_pylist() == [1, 2, 1]
    assert table["step"].to_pylist() == [10, 20, 10]
    assert table["train/loss"].to_pylist() == [1.0, 0.5, 1.0]
    assert table["validation/accuracy"].to_pylist() == [0.6, 0.7, None]
    assert table["validation/f1"].to_pylist() == [None, None, 0.3]
    assert table["validation/loss"].to_pylist() == [1.5, 0.75, 2.0]


def test_no_record_is_an_empty_curve():
    table = epochs_table(table_from_records([]))
    assert table.num_rows == 0
    assert table.column_names[7:11] == ["epoch", "step", "train/loss", "validation_score"]
