from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from orchestrator.record import TrialStatus
from orchestrator.store import Store
from orchestrator.store.curves import epochs_table
from orchestrator.store.rows import records_from_table, table_from_records
from orchestrator.store.segments import Segments, segment_name
from tests.factories import measured_record
from trainables.faults import FaultsError


def test_a_new_store_gives_back_its_spec_and_plan(tmp_path, plan):
    store = Store(tmp_path / "sweep")
    assert not store.exists()
    store.create('{"name": "quickstart"}', plan)
    assert store.exists()
    assert store.spec_json() == '{"name": "quickstart"}'
    assert store.plan_table().equals(plan)
    assert store.trials().num_rows == 0
    assert store.statuses() == {}


def test_a_store_is_never_created_over_another(tmp_path, plan):
    Store(tmp_path).create('{"name": "first"}', plan)
    with pytest.raises(FaultsError, match="stored here already"):
        Store(tmp_path).create('{"name": "second"}', plan)
    assert Store(tmp_path).spec_json() == '{"name": "first"}'


def test_a_place_without_a_store_is_a_fault(tmp_path):
    with pytest.raises(FaultsError, match=r"no sweep stored here; .*spec.json lies in it"):
        Store(tmp_path).spec_json()


def test_keys_to_a_bucket_are_refused_and_not_shown():
    with pytest.raises(FaultsError, match=r"s3://\*\*\*:\*\*\*@bucket/sweep.*AWS_ACCESS_KEY_ID"):
        Store("s3://key:secret@bucket/sweep?region=eu")


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path, plan):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FaultsError, match="must be writable"):
        Store(tmp_path / "file" / "sweep").create('{"name": "quickstart"}', plan)
    with pytest.raises(FaultsError, match="must be writable"):
        Store(tmp_path / "file" / "sweep").lock().__enter__()


def test_records_are_read_back_in_the_order_they_were_added(tmp_path):
    store = Store(tmp_path)
    store.append([measured_record("b"), measured_record("a", "failed")])
    store.append([])
    store.append([measured_record("c", "pruned")])
    assert store.trials()["trial_id"].to_pylist() == ["b", "a", "c"]
    assert "epochs" not in store.trials().column_names
    assert store.epochs().num_rows == 6
    assert [r.trial_id for r in store.records()] == ["b", "a", "c"]
    assert store.statuses() == {"b": TrialStatus.COMPLETED, "a": TrialStatus.FAILED, "c": TrialStatus.PRUNED}
    assert store.finished_ids() == {"b", "c"}
    assert len(list((tmp_path / "trials").iterdir())) == 2


@pytest.mark.parametrize("ids", [["new", "old"], ["new", "new"]])
def test_a_second_record_of_a_trial_is_refused_before_anything_is_written(tmp_path, ids):
    Store(tmp_path).append([measured_record("old")])
    with pytest.raises(ValueError, match=f"there would be a second of {ids[1]}"):
        Store(tmp_path).append([measured_record(trial_id) for trial_id in ids])
    assert Store(tmp_path).trials()["trial_id"].to_pylist() == ["old"]


def test_a_retired_record_is_moved_so_that_its_trial_can_run_again(tmp_path):
    store = Store(tmp_path)
    store.append([measured_record("a"), measured_record("b", "failed", error="boom")])
    store.append([measured_record("c", "cancelled")])
    assert store.retire(["b", "c", "unheard of"]) == 2
    assert store.trials()["trial_id"].to_pylist() == ["a"]
    store.append([measured_record("b")])
    assert store.finished_ids() == {"a", "b"}
    superseded = pq.read_table(tmp_path / "superseded").select(["trial_id", "error"])
    assert sorted(superseded.to_pylist(), key=lambda row: row["trial_id"]) == [
        {"trial_id": "b", "error": "boom"},
        {"trial_id": "c", "error": None},
    ]


def test_a_finished_record_cannot_be_retired(tmp_path):
    store = Store(tmp_path)
    store.append([measured_record("a", "failed"), measured_record("b", "pruned")])
    with pytest.raises(ValueError, match="but b should be retired"):
        store.retire(["a", "b"])
    assert len(store.statuses()) == 2


def test_retiring_all_leaves_an_empty_store(tmp_path):
    store = Store(tmp_path)
    store.append([measured_record("a", "failed")])
    store.retire(["a"])
    assert store.trials().num_rows == 0
    assert list((tmp_path / "trials").iterdir()) == []


def test_compacting_makes_one_file_that_other_tools_read_whole(tmp_path):
    store = Store(tmp_path)
    store.append([measured_record("a", hyperparameters={"adapter_size": 8})])
    store.append([measured_record("b", hyperparameters={"num_layers": 2}, provenance={"device": "cpu"}, test={})])
    before = store.trials(), store.epochs()
    store.compact()
    store.compact()
    assert (store.trials(), store.epochs()) == before
    assert len(list((tmp_path / "trials").iterdir())) == 1
    plain = pyarrow.dataset.dataset(tmp_path / "trials").to_table()
    assert plain.drop_columns(["epochs"]).equals(store.trials())


def test_segments_as_they_are_appended_are_read_by_other_tools(tmp_path):
    store = Store(tmp_path)
    for trial_id in ("a", "b"):
        store.append([measured_record(trial_id)])
    assert pyarrow.dataset.dataset(tmp_path / "trials").to_table(columns=["trial_id"]).num_rows == 2


def test_torn_and_foreign_files_are_reported_once_and_left_alone(tmp_path, caplog):
    store = Store(tmp_path)
    store.append([measured_record("a")])
    trials = tmp_path / "trials"
    (whole,) = trials.iterdir()
    torn = trials / "part-00000002-0123abcd.parquet"
    torn.write_bytes(whole.read_bytes()[:-20])
    pq.write_table(pa.table({"x": [1]}), trials / "part-00000003-0123abcd.parquet")
    (trials / "notes.txt").write_text("mine")
    (trials / ".part-00000004-0123abcd.parquet.1.tmp").write_text("a writer is at work")
    with caplog.at_level(logging.WARNING):
        assert store.trials()["trial_id"].to_pylist() == ["a"]
        assert store.statuses() == {"a": TrialStatus.COMPLETED}
    ignored = sorted(r.getMessage().split(" is ignored")[0].rpartition("/")[2] for r in caplog.records)
    assert ignored == ["notes.txt", "part-00000002-0123abcd.parquet", "part-00000003-0123abcd.parquet"]
    store.append([measured_record("b")])
    store.compact()
    assert store.trials()["trial_id"].to_pylist() == ["a", "b"]
    assert torn.exists()
    assert len(list(trials.iterdir())) == 4  # the three, and the merged segment


def test_a_file_system_that_fails_to_read_is_not_taken_for_a_torn_file(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append([measured_record("a")])

    def fail(self, name):
        raise OSError("connection reset")

    monkeypatch.setattr("orchestrator.store.files.Folder.read", fail)
    with pytest.raises(FaultsError, match="must be readable, but connection reset"):
        Store(tmp_path).statuses()


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("change", ["append", "compact", "retire"])
@pytest.mark.thinned(2)
def test_a_change_that_fails_midway_loses_and_doubles_nothing(tmp_path, failing, change, after):
    handler, filesystem = failing
    store = Store(str(tmp_path), filesystem=filesystem)
    for trial_id in ("a", "b", "c"):
        store.append([measured_record(trial_id, "failed" if trial_id == "b" else "completed")])
    kept = store.trials()
    changes = {
        "append": lambda: store.append([measured_record("d")]),
        "compact": store.compact,
        "retire": lambda: store.retire(["b"]),
    }
    handler.after = after
    try:
        changes[change]()
        failed = False
    except (OSError, FaultsError):
        failed = True
    assert failed == (after < {"append": 2, "compact": 5, "retire": 3}[change])
    handler.after = None
    seen = Store(tmp_path)
    ids = seen.trials()["trial_id"].to_pylist()
    if change == "append":
        assert ids == (["a", "b", "c"] if failed else ["a", "b", "c", "d"])
    else:
        assert sorted(set(ids) | {"b"}) == ["a", "b", "c"]
        assert len(set(ids)) == len(ids)
    if change == "compact":
        assert seen.trials().equals(kept)
    if change == "retire":
        seen.retire(["b"])  # what a resumed driver does
        assert seen.finished_ids() == {"a", "c"}
        assert len(list((tmp_path / "superseded").glob("part-*"))) == 1
    seen.compact()
    assert len(list((tmp_path / "trials").glob("part-*"))) == 1


def test_a_reader_whose_files_are_compacted_away_begins_again(tmp_path, monkeypatch):
    reader, writer = Store(tmp_path), Store(tmp_path)
    for trial_id in ("a", "b"):
        writer.append([measured_record(trial_id)])
    listed = Segments.segment_names
    interruptions = iter([True])

    def compact_after_listing(self):
        names = listed(self)
        if next(interruptions, False):
            writer.compact()
        return names

    monkeypatch.setattr(Segments, "segment_names", compact_after_listing)
    assert reader.trials()["trial_id"].to_pylist() == ["a", "b"]
    assert next(interruptions, "used") == "used"


def test_an_empty_store_has_the_columns_and_types_of_one_with_records(tmp_path):
    empty = Store(tmp_path).trials()
    Store(tmp_path).append([measured_record()])
    assert set(empty.column_names) <= set(Store(tmp_path).trials().column_names)
    assert empty.schema == table_from_records([]).drop_columns(["epochs"]).schema


def test_a_store_from_before_a_column_was_known_is_read_and_added_to(tmp_path):
    older, newer = records_from_table(table_from_records([measured_record("a"), measured_record("b", pack_size=3.5)]))
    (tmp_path / "trials").mkdir()
    before = table_from_records([older]).drop_columns(["pack_size"])
    pq.write_table(before, tmp_path / "trials" / "part-00000001-0a1b2c3d.parquet")
    store = Store(tmp_path)
    assert store.records() == [older]
    store.append([newer])
    assert store.trials()["pack_size"].to_pylist() == [None, 3.5]
    store.compact()
    assert store.records() == [older, newer]


def test_epochs_are_parsed_when_asked_for_and_not_before(tmp_path, monkeypatch):
    writer = Store(tmp_path)
    writer.append([measured_record("a"), measured_record("b")])
    read, columns = pq.ParquetFile.read, []

    def noting(self, wanted=None):
        columns.append(wanted)
        return read(self, wanted)

    monkeypatch.setattr(pq.ParquetFile, "read", noting)
    reader = Store(tmp_path)
    reader.trials()
    reader.statuses()
    assert len(columns) == 2
    assert all("trial_id" in wanted and "epochs" not in wanted for wanted in columns)
    assert reader.epochs()["trial_id"].to_pylist() == ["a", "a", "b", "b"]
    assert "epochs" in columns[-1]


@pytest.mark.parametrize("change", ["append", "compact", "retire"])
@pytest.mark.thinned(1)
def test_epochs_are_those_of_the_trials_they_were_opened_with_whatever_comes_between(tmp_path, change):
    store = Store(tmp_path)
    for trial_id in ("a", "b"):
        store.append([measured_record(trial_id, "failed" if trial_id == "a" else "completed")])
    before = store.epochs()
    trials, rows = Store(tmp_path).trials_and_epochs()
    {
        "append": lambda: store.append([measured_record("c")]),
        "compact": store.compact,
        "retire": lambda: store.retire(["a"]),
    }[change]()
    assert trials["trial_id"].to_pylist() == rows()["trial_id"].to_pylist() == ["a", "b"]
    assert epochs_table(rows()).equals(before)


def test_a_file_whose_epochs_are_damaged_is_no_segment_for_any_question(tmp_path, caplog):
    store = Store(tmp_path)
    store.append([measured_record("a")])
    store.append([measured_record(f"b{number}") for number in range(50)])
    damaged = sorted((tmp_path / "trials").iterdir())[1]
    group = pq.ParquetFile(damaged).metadata.row_group(0)
    places = [group.column(number) for number in range(group.num_columns)]
    start = next(place.data_page_offset for place in places if place.path_in_schema.endswith("train_loss"))
    content = bytearray(damaged.read_bytes())
    content[start : start + 40] = bytes(40)
    damaged.write_bytes(content)
    reader = Store(tmp_path)
    assert reader.trials()["trial_id"].to_pylist() == ["a"]
    assert set(reader.statuses()) == set(reader.epochs()["trial_id"].to_pylist()) == {"a"}
    assert [record.trial_id for record in reader.records()] == ["a"]
    assert caplog.text.count(f"{damaged.name} is ignored") == 1


def test_of_two_records_of_a_trial_the_later_one_gives_its_epochs_too(tmp_path):
    store = Store(tmp_path)
    store.append([measured_record("a"), measured_record("b")])
    Store(tmp_path / "other").append([measured_record("a", epochs=measured_record().epochs[:1])])
    (later,) = (tmp_path / "other" / "trials").iterdir()
    content = later.read_bytes()
    (tmp_path / "trials" / segment_name(2, content)).write_bytes(content)
    assert Store(tmp_path).trials()["trial_id"].to_pylist() == ["b", "a"]
    assert Store(tmp_path).epochs()["trial_id"].to_pylist() == ["b", "b", "a"]
