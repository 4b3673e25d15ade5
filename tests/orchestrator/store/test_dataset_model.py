"""Whatever is done to a store, and in whichever order, it holds what a plain dictionary would hold."""

from __future__ import annotations

import os
import tempfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.store import Store
from orchestrator.store.rows import table_from_records
from tests.factories import measured_record

OPTIONS = st.fixed_dictionaries(
    {"learning_rate": st.sampled_from([1e-3, 1, None])},
    optional={
        "adapter_size": st.sampled_from([2, 64, None]),
        "scale": st.sampled_from([1, 0.5]),
        "bias": st.booleans(),
    },
)
RECORD = st.tuples(
    st.integers(0, 9).map(str),
    st.sampled_from(["completed", "pruned", "failed", "cancelled"]),
    OPTIONS,
    st.dictionaries(st.sampled_from(["commit", "device", "torch"]), st.text(max_size=2), max_size=2),
    st.dictionaries(st.sampled_from(["accuracy", "f1"]), st.floats(0, 1), max_size=2),
)
STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(RECORD, max_size=3, unique_by=lambda drawn: drawn[0])),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("retire"), st.sets(st.integers(0, 9).map(str), max_size=4)),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(STEP, max_size=12))
@pytest.mark.thorough
def test_any_order_of_changes_gives_the_table_of_a_plain_dictionary(steps):
    model = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as folder:  # in memory, if there
        store = Store(folder)
        for step, argument in steps:
            if step == "append":
                new = [
                    measured_record(i, status, hyperparameters=options, provenance=provenance, test=test)
                    for i, status, options, provenance, test in argument
                    if i not in model
                ]
                store.append(new)
                model |= {r.trial_id: r for r in new}
            elif step == "compact":
                store.compact()
            elif step == "retire":
                retirable = {i for i in argument if i not in model or not model[i].status.is_finished()}
                held = {i for i in retirable if i in model}
                assert store.retire(retirable) == len(held)
                model = {i: r for i, r in model.items() if i not in held}
            else:
                store = Store(folder)
        expected = table_from_records(list(model.values())).drop_columns(["epochs"])
        table = store.trials()
        # A type or a column that only a retired record asked for may stay, without a value.
        for name in table.column_names:
            values = expected[name].to_pylist() if name in expected.column_names else [None] * len(model)
            if name == "provenance":
                assert [_without_nulls(p) for p in table[name].to_pylist()] == [_without_nulls(p) for p in values]
            else:
                assert table[name].to_pylist() == values, name
        assert set(expected.column_names) <= set(table.column_names)
        assert store.statuses() == {i: r.status for i, r in model.items()}


def _without_nulls(struct):
    return {key: value for key, value in struct.items() if value is not None}


@pytest.mark.thorough
def test_a_reader_beside_a_writer_sees_only_whole_and_growing_states(tmp_path):
    writer, done, faults = Store(tmp_path), threading.Event(), []

    def read() -> None:
        store, least = Store(tmp_path), 0
        while not done.is_set():
            ids = store.trials()["trial_id"].to_pylist()
            if len(ids) < least or ids != [str(i) for i in range(len(ids))]:
                faults.append(ids)
            least = len(ids)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        writer.append([measured_record(str(i))])
        if i % 5 == 4:
            writer.compact()
    done.set()
    reader.join()
    assert faults == []
