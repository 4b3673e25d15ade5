"""The sweeps of a store: what was asked and planned, by name, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.store import Store
from orchestrator.store.segments import MERGE_EVERY
from tests.factories import measured_record, plan_rows
from trainables.faults import FaultsError


def _spec(name, **values):
    return json.dumps({"name": name, **values})


def _ids(store, name=None):
    return store.plan_table(name)["trial_id"].to_pylist()


def test_widening_keeps_every_earlier_spec_and_plan(tmp_path):
    store, plan = Store(tmp_path), plan_rows("t0", "t1")
    store.create(_spec("one"), plan)
    store.begin(_spec("one"), plan)
    assert not (tmp_path / "history").exists()
    wider = plan_rows("t0", "t1", "t2")
    store.begin(_spec("one", seeds=2), wider)
    store.begin(_spec("one", seeds=3), wider)
    assert (store.spec_json(), _ids(store)) == (_spec("one", seeds=3), ["t0", "t1", "t2"])
    assert sorted(p.name for p in (tmp_path / "history").iterdir()) == [
        *("0001-plan.parquet", "0001-spec.json", "0002-plan.parquet", "0002-spec.json")
    ]
    assert (tmp_path / "history" / "0001-spec.json").read_text() == _spec("one")
    assert pq.read_table(tmp_path / "history" / "0001-plan.parquet").equals(plan)


def test_a_number_that_history_has_is_never_used_again(tmp_path, plan):
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "0007-spec.json").write_text("kept")
    (tmp_path / "history" / "notes").write_text("mine")
    store = Store(tmp_path)
    store.create(_spec("one"), plan)
    store.begin(_spec("one", seeds=2), plan)
    assert (tmp_path / "history" / "0007-spec.json").read_text() == "kept"
    assert (tmp_path / "history" / "0008-spec.json").read_text() == _spec("one")


def test_sweeps_that_share_a_store_keep_their_specs_and_plans(tmp_path):
    store = Store(tmp_path)
    store.create(_spec("a"), plan_rows("t0", "t1", sweep="a", adapter_size=[2, 4]))
    assert store.sweeps() == ("a",)
    store.begin(_spec("b"), plan_rows("t1", "t2", sweep="b", adapter_size=["small", "large"]))
    store.begin(_spec("c"), plan_rows("t3", sweep="c"))
    assert store.sweeps() == ("c", "a", "b")
    assert [store.spec_json(name) for name in "abc"] == [_spec(name) for name in "abc"]
    assert store.spec_json() == _spec("c")
    assert [_ids(store, name) for name in "abc"] == [["t0", "t1"], ["t1", "t2"], ["t3"]]
    assert sorted(_ids(store)) == ["t0", "t1", "t2", "t3"]
    sizes = {row["trial_id"]: row["adapter_size"] for row in store.plan_table().to_pylist()}
    assert sizes == {"t0": "2", "t1": "small", "t2": "large", "t3": None}
    assert (tmp_path / "sweeps" / "a" / "spec.json").exists()
    store.begin(_spec("a", seeds=2), plan_rows("t0", "t1", "t4", sweep="a"))
    assert store.sweeps() == ("a", "b", "c")
    assert _ids(store, "a") == ["t0", "t1", "t4"]
    assert list((tmp_path / "sweeps" / "a").iterdir()) == []
    assert (tmp_path / "history" / "0001-spec.json").read_text() == _spec("a")


def test_an_unknown_sweep_is_refused_with_the_known_ones(tmp_path, plan):
    store = Store(tmp_path)
    store.create(_spec("first"), plan)
    for ask in (store.spec_json, store.plan_table, store.unproposed):
        with pytest.raises(FaultsError, match=r"did you mean 'first'\? Known: first"):
            ask("frist")


@pytest.mark.parametrize("after", range(16))
@pytest.mark.parametrize("name", ["b", "c"])  # one that the store has, and a new one
def test_a_switch_that_fails_midway_leaves_a_readable_store_and_can_be_made_again(tmp_path, failing, after, name):
    handler, filesystem = failing
    store = Store(str(tmp_path), filesystem=filesystem)
    store.create(_spec("b"), plan_rows("t1", "t2", sweep="b"))
    store.begin(_spec("a"), plan_rows(sweep="a"), 4)
    store.add_planned(plan_rows("t0", sweep="a"))
    handler.after = after
    trials = ["t1", "t2", "t3"] if name == "b" else ["t3"]
    with contextlib.suppress(FaultsError):
        store.begin(_spec(name), plan_rows(*trials, sweep=name))
    handler.after = None
    seen = Store(tmp_path)
    assert {"a", "b"} <= set(seen.sweeps())
    assert _ids(seen, "a") == ["t0"]
    assert _ids(seen, "b") in (["t1", "t2"], trials)
    if "c" in seen.sweeps():
        assert _ids(seen, "c") in ([], ["t3"])
    seen.begin(_spec(name), plan_rows(*trials, sweep=name))  # what a driver does that is started again
    assert (seen.sweeps()[0], _ids(seen, name), _ids(seen, "a")) == (name, trials, ["t0"])


class TestASearchThatPlansAsItGoes:
    def test_what_it_proposes_is_planned_at_once_and_merged_in_the_end(self, tmp_path):
        store = Store(tmp_path)
        store.create(_spec("a"), plan_rows(sweep="a"), 6)
        assert (_ids(store), store.unproposed()) == ([], 6)
        store.add_planned(plan_rows("t0", "t1", sweep="a", adapter_size=[1, 1]))
        store.add_planned(plan_rows("t2", sweep="a", num_layers=[3]))
        assert (_ids(Store(tmp_path)), store.unproposed("a")) == (["t0", "t1", "t2"], 3)
        store.compact()
        assert list((tmp_path / "planned").iterdir()) == []
        assert (_ids(store), store.unproposed()) == (["t0", "t1", "t2"], 3)
        assert store.plan_table().select(["adapter_size", "num_layers"]).to_pylist()[1:] == [
            {"adapter_size": 1, "num_layers": None},
            {"adapter_size": None, "num_layers": 3},
        ]
        store.compact(plan_is_final=True)  # it found no more than these
        assert (len(_ids(store)), store.unproposed()) == (3, 0)

    def test_many_proposals_are_merged_while_it_runs(self, tmp_path):
        store = Store(tmp_path)
        store.create(_spec("a"), plan_rows(sweep="a"), 100)
        for number in range(MERGE_EVERY + 2):
            store.add_planned(plan_rows(f"t{number}", sweep="a"))
        assert len(list((tmp_path / "planned").iterdir())) == 2
        assert _ids(store) == [f"t{number}" for number in range(MERGE_EVERY + 2)]

    def test_a_torn_proposal_is_reported_once_and_left_alone(self, tmp_path, caplog):
        store = Store(tmp_path)
        store.create(_spec("a"), plan_rows(sweep="a"), 100)
        store.add_planned(plan_rows("t0", sweep="a"))
        (whole,) = (tmp_path / "planned").iterdir()
        torn = tmp_path / "planned" / "part-00000007-0123abcd.parquet"
        torn.write_bytes(whole.read_bytes()[:-9])
        with caplog.at_level(logging.WARNING):
            assert _ids(store) == _ids(store) == ["t0"]
        assert caplog.text.count("is ignored") == 1
        store.add_planned(plan_rows("t1", sweep="a"))
        store.compact()
        assert _ids(store) == ["t0", "t1"]
        assert torn.exists()

    @pytest.mark.parametrize("after", range(5))
    def test_a_merge_that_fails_midway_loses_and_doubles_nothing(self, tmp_path, failing, after):
        handler, filesystem = failing
        store = Store(str(tmp_path), filesystem=filesystem)
        store.create(_spec("a"), plan_rows(sweep="a"), 9)
        store.add_planned(plan_rows("t0", sweep="a"))
        store.add_planned(plan_rows("t1", sweep="a"))
        handler.after = after
        try:
            store.compact()
        except OSError:
            assert after < 4
        assert sorted(_ids(Store(tmp_path))) == ["t0", "t1"]

    def test_a_proposal_that_cannot_be_written_raises(self, tmp_path, failing):
        handler, filesystem = failing
        store = Store(str(tmp_path), filesystem=filesystem)
        store.create(_spec("a"), plan_rows(sweep="a"), 9)
        handler.after = 0
        with pytest.raises(OSError, match="No space left"):
            store.add_planned(plan_rows("t0", sweep="a"))


class TestOddStores:
    """Whatever lies where a store should be: the fault is named."""

    @pytest.mark.parametrize(
        "spec",
        [b"", b"{", b"[]", b"null", b"{}", b'{"name": 3}', b'{"name": "../up"}', b"\xff", b"[" * 100_000],
    )
    def test_a_spec_that_is_none_is_named(self, tmp_path, plan, spec):
        Store(tmp_path).create(_spec("a"), plan)
        (tmp_path / "spec.json").write_bytes(spec)
        for ask in (Store(tmp_path).sweeps, Store(tmp_path).spec_json, Store(tmp_path).plan_table):
            with pytest.raises(FaultsError, match=r"spec.json must be as adaptune wrote it"):
                ask()

    def test_a_plan_that_is_none_is_named(self, tmp_path):
        store = Store(tmp_path)
        store.create(_spec("a"), plan_rows("t0"))
        whole = (tmp_path / "plan.parquet").read_bytes()
        nulls = plan_rows("t0").set_column(1, "trial_id", pa.array([None], pa.string()))
        lists = plan_rows("t0", sizes=pa.array([[1]]))
        odd = [whole[:-7], b"", b"PAR1", *map(_parquet, (pa.table({"x": [1]}), nulls, lists))]
        odd += [_parquet(plan_rows("t0", outcome_version=["new"]))]
        for content in odd:
            (tmp_path / "plan.parquet").write_bytes(content)
            with pytest.raises(FaultsError, match=r"plan.parquet must be as adaptune wrote it"):
                store.plan_table()
        (tmp_path / "plan.parquet").unlink()
        with pytest.raises(FaultsError, match=r"plan.parquet must be there, as adaptune wrote it, but is missing"):
            store.plan_table()
        (tmp_path / "plan.parquet").mkdir()
        with pytest.raises(FaultsError, match="must be readable"):
            store.plan_table()

    def test_files_where_folders_should_be_are_named(self, tmp_path, plan):
        store = Store(tmp_path)
        store.create(_spec("a"), plan)
        for name, ask in (("trials", store.statuses), ("sweeps", store.sweeps), ("planned", store.plan_table)):
            (tmp_path / name).write_text("in the way")
            with pytest.raises(FaultsError, match="must be readable"):
                ask()
            (tmp_path / name).unlink()
        (tmp_path / "history").write_text("in the way")
        with pytest.raises(FaultsError, match="must be writable"):
            store.begin(_spec("a", seeds=1), plan)
        assert store.spec_json() == _spec("a")

    def test_another_store_below_is_neither_read_nor_written_over(self, tmp_path):
        inner = Store(tmp_path / "sweeps" / "a")
        inner.create(_spec("a"), plan_rows("t9", sweep="a"))
        inner.append([measured_record("t9")])
        store = Store(tmp_path)
        store.create(_spec("a"), plan_rows("t0", sweep="a"))
        assert store.sweeps() == ("a",)
        with pytest.raises(FaultsError, match="is a store of its own"):
            store.begin(_spec("b"), plan_rows("t1", sweep="b"))
        assert _ids(inner) == ["t9"]

    def test_a_sweep_whose_folder_has_another_name_is_named(self, tmp_path):
        store = Store(tmp_path)
        store.create(_spec("a"), plan_rows("t0", sweep="a"))
        store.begin(_spec("b"), plan_rows("t1", sweep="b"))
        (tmp_path / "sweeps" / "a").rename(tmp_path / "sweeps" / "z")
        with pytest.raises(FaultsError, match="it is of a sweep named a"):
            store.spec_json("z")


def _parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()
