"""Predictions beside the records: small, found without the rest, and harmless where they are torn or nobody's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from orchestrator.store import Store, TrialPredictions
from orchestrator.store import predictions as module
from orchestrator.store.files import Folder
from orchestrator.store.prediction_table import GROUP_ROWS
from orchestrator.store.predictions import LARGE, PredictionFiles
from orchestrator.store.segments import MERGE_EVERY
from tests.factories import STARTED_AT, measured_record
from tests.predicted import of_trial, predicted, rows_named
from trainables.faults import FaultsError
from trainables.metrics import TaskKind
from trainables.predictions import Predictions, predictions_table

LATER = "2026-01-02T04:00:00+00:00"


def files(path: Path) -> list[str]:
    return sorted(each.name for each in (path / "predictions").glob("*.parquet"))


def assert_same(found: pa.Table, trial_id: str, given: TrialPredictions) -> None:
    """What was read is what was given, in its order, with the rows' hashes and labels."""
    expected = predictions_table(given.splits)
    assert found["trial_id"].to_pylist() == [trial_id] * expected.num_rows
    assert found.select(expected.column_names).to_pylist() == expected.to_pylist()


class TestWhatIsKept:
    @pytest.mark.parametrize("kind", get_args(TaskKind))
    def test_is_read_back_as_it_was(self, tmp_path: Path, kind: Any) -> None:
        given = {name: of_trial(test=predicted(seed, kind=kind), validation=predicted(seed + 9, kind=kind))
                 for seed, name in enumerate("ba")}  # fmt: skip
        Store(tmp_path).keep_predictions(given)
        found = Store(tmp_path).predictions(dict.fromkeys("ab", STARTED_AT))
        assert set(found) == {"a", "b"}
        for trial_id, trial in given.items():
            assert_same(found[trial_id], trial_id, trial)

    def test_is_of_several_tasks_in_one_file(self, tmp_path: Path) -> None:
        given = {
            "few": of_trial(),
            "many": of_trial(test=predicted(classes=77)),
            "number": of_trial(test=predicted(kind="regression")),
            "moods": of_trial(test=predicted(rows=rows_named("m", 4, "multilabel"), kind="multilabel", classes=28)),
            "answer": of_trial(test=predicted(rows=rows_named("q", 2, "extractive_qa"), kind="extractive_qa")),
        }
        Store(tmp_path).keep_predictions(given)
        assert len(files(tmp_path)) == 1
        found = Store(tmp_path).predictions(dict.fromkeys(given, STARTED_AT))
        for trial_id, trial in given.items():
            assert_same(found[trial_id], trial_id, trial)

    def test_can_be_asked_of_one_split(self, tmp_path: Path) -> None:
        Store(tmp_path).keep_predictions({"a": of_trial(), "b": of_trial(1)})
        found = Store(tmp_path).predictions({"b": STARTED_AT}, "test")
        assert list(found) == ["b"]
        assert found["b"]["split"].to_pylist() == ["test"] * 4
        assert Store(tmp_path).predictions({"b": STARTED_AT}, "tset") == {}

    def test_rows_are_kept_once_for_all_trials(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.keep_predictions({"a": of_trial()})
        store.keep_predictions({"b": of_trial(1)})
        assert sorted(each.name for each in (tmp_path / "predictions" / "rows").iterdir()) == ["t.parquet", "v.parquet"]

    def test_is_small_and_read_by_other_tools(self, tmp_path: Path) -> None:
        rows = rows_named(count=10_000)
        store = Store(tmp_path)
        store.keep_predictions(
            {name: of_trial(test=predicted(seed, rows=rows, classes=5)) for seed, name in enumerate("abc")}
        )
        (name,) = files(tmp_path)
        per_row = (tmp_path / "predictions" / name).stat().st_size / 30_000
        assert per_row < 11  # ten bytes of scores as noisy as they can be, and a little
        plain = pyarrow.dataset.dataset(tmp_path / "predictions" / name).to_table(columns=["trial_id", "class"])
        assert plain.num_rows == 30_000
        assert pq.read_table(tmp_path / "predictions" / name, filters=[("trial_id", "=", "b")]).num_rows == 10_000

    def test_of_one_trial_no_more_than_its_part_of_the_file_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = rows_named(count=GROUP_ROWS // 2)
        ids = [f"{number:02d}" for number in range(8)]
        Store(tmp_path).keep_predictions({i: of_trial(test=predicted(rows=rows)) for i in ids})
        asked: list[list[int]] = []
        original = pq.ParquetFile.read_row_groups

        def read(self: pq.ParquetFile, groups: list[int], **options: Any) -> pa.Table:
            asked.append(groups)
            return original(self, groups, **options)

        monkeypatch.setattr(pq.ParquetFile, "read_row_groups", read)
        Store(tmp_path).predictions({"05": STARTED_AT})
        assert asked == [[2]]


class TestTrainings:
    def test_of_a_training_without_a_record_nothing_is_read(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.keep_predictions({"a": of_trial(0), "b": of_trial(1)})  # and the driver died
        again = of_trial(7, started_at=LATER)
        store.keep_predictions({"a": again})
        for reader in (store, Store(tmp_path)):
            assert_same(reader.predictions({"a": LATER})["a"], "a", again)
        store.compact()
        assert_same(store.predictions({"a": LATER})["a"], "a", again)
        assert store.predictions({"b": LATER}) == {}

    def test_keeping_the_same_again_doubles_nothing(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        for _ in range(2):
            store.keep_predictions({"a": of_trial()})
        store.compact()
        assert len(files(tmp_path)) == 1
        assert_same(Store(tmp_path).predictions({"a": STARTED_AT})["a"], "a", of_trial())


class TestFiles:
    def test_small_files_are_merged_as_they_come_and_large_ones_are_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(tmp_path)
        with store.lock():
            for number in range(2 * MERGE_EVERY + 3):
                store.keep_predictions({f"t{number}": of_trial(number)})
            few = len(files(tmp_path))
            assert 1 < few < 10
            monkeypatch.setattr(module, "LARGE", 1)
            store.compact()
            assert len(files(tmp_path)) == few
            monkeypatch.setattr(module, "LARGE", LARGE)
            store.compact()
            assert len(files(tmp_path)) == 1
            store.keep_predictions({"last": of_trial(5)})
        found = Store(tmp_path).predictions(dict.fromkeys(["t0", "t100", "last"], STARTED_AT))
        for trial_id, seed in (("t0", 0), ("t100", 100), ("last", 5)):
            assert_same(found[trial_id], trial_id, of_trial(seed))

    def test_files_that_are_large_together_are_merged_before_they_are_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(tmp_path)
        monkeypatch.setattr(module, "LARGE", 20_000)
        with store.lock():
            for number in range(40):
                store.keep_predictions({f"t{number}": of_trial(number)})
                assert len(files(tmp_path)) < 12
        sizes = [each.stat().st_size for each in (tmp_path / "predictions").glob("*.parquet")]
        assert max(sizes) < 40_000
        assert len(store.predictions({f"t{number}": STARTED_AT for number in range(40)})) == 40

    def test_merging_stops_at_the_size_of_a_large_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Store(tmp_path)
        for number in range(6):
            store.keep_predictions({f"t{number}": of_trial(number)})
        size = max(each.stat().st_size for each in (tmp_path / "predictions").glob("*.parquet"))
        monkeypatch.setattr(module, "LARGE", size + 1)
        store.compact()
        assert len(files(tmp_path)) == 3
        found = store.predictions({f"t{number}": STARTED_AT for number in range(6)})
        assert len(found) == 6

    def test_a_reader_whose_files_are_merged_away_begins_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, writer = Store(tmp_path), Store(tmp_path)
        for number in range(3):
            writer.keep_predictions({f"t{number}": of_trial(number)})
        indexed = PredictionFiles._indexed
        interruptions = iter([True])

        def merge_after_looking(self: PredictionFiles) -> Any:
            found = indexed(self)
            if next(interruptions, False):
                writer.compact()
            return found

        monkeypatch.setattr(PredictionFiles, "_indexed", merge_after_looking)
        assert_same(reader.predictions({"t1": STARTED_AT})["t1"], "t1", of_trial(1))
        assert next(interruptions, "used") == "used"

    @pytest.mark.parametrize("after", range(8))
    @pytest.mark.parametrize("change", ["keep", "compact"])
    @pytest.mark.thinned(6)
    def test_a_change_that_fails_midway_loses_nothing_that_was_kept(
        self, tmp_path: Path, failing: Any, change: str, after: int
    ) -> None:
        handler, filesystem = failing
        store = Store(str(tmp_path), filesystem=filesystem)
        for number in range(3):
            store.keep_predictions({f"t{number}": of_trial(number)})
        more = {"t3": of_trial(test=predicted(3, rows=rows_named("new")))}
        handler.after = after
        try:
            store.keep_predictions(more) if change == "keep" else store.compact()
            failed = False
        except OSError:
            failed = True
        handler.after = None
        assert failed == (after < {"keep": 4, "compact": 5}[change])
        for reader in (store, Store(tmp_path)):
            found = reader.predictions({f"t{number}": STARTED_AT for number in range(4)})
            assert set(found) == {"t0", "t1", "t2"} | ({"t3"} if change == "keep" and not failed else set())
            for number in range(3):
                assert_same(found[f"t{number}"], f"t{number}", of_trial(number))
        store.keep_predictions(more)
        store.compact()
        assert len(files(tmp_path)) == 1
        assert_same(Store(tmp_path).predictions({"t3": STARTED_AT})["t3"], "t3", more["t3"])

    def test_what_a_writer_that_died_left_is_taken_away(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.keep_predictions({"a": of_trial()})
        for folder in (tmp_path / "predictions", tmp_path / "predictions" / "rows"):
            (folder / ".part-00000002-0123abcd.parquet.1.tmp").write_text("half")
        store.compact()
        assert not list((tmp_path / "predictions").rglob("*.tmp"))
        assert_same(store.predictions({"a": STARTED_AT})["a"], "a", of_trial())

    def test_foreign_files_are_left_alone(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.keep_predictions({"a": of_trial()})
        for name in ("notes.txt", "x.parquet", "part-1.parquet"):
            (tmp_path / "predictions" / name).write_text("not ours")
        store.keep_predictions({"b": of_trial(1)})
        store.compact()
        assert_same(store.predictions({"a": STARTED_AT})["a"], "a", of_trial())
        assert (tmp_path / "predictions" / "x.parquet").read_text() == "not ours"


def torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_its_end(content: bytes) -> bytes:
    return content[:-2]


def with_a_hole(content: bytes) -> bytes:
    return content[:4] + b"\xff" * 200 + content[204:]


def with_one_bit_turned(content: bytes) -> bytes:
    place = content.index(b"answer") if b"answer" in content else 300
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = (torn, without_its_end, with_a_hole, with_one_bit_turned)


class TestDamage:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """Two files of predictions, of which the first is to be damaged, and a record."""
        store = Store(tmp_path)
        store.keep_predictions({"a": of_trial(0)})
        store.keep_predictions({"b": of_trial(1)})
        store.append([measured_record("a"), measured_record("b")])
        return store

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_damaged_file_is_named_with_a_remedy_and_harms_no_other_answer(
        self, store: Store, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        path = tmp_path / "predictions" / files(tmp_path)[0]
        path.write_bytes(damage(path.read_bytes()))
        fresh = Store(tmp_path)
        with pytest.raises(FaultsError, match="put back a copy of the file or delete it") as refusal:
            fresh.predictions({"a": STARTED_AT})
        assert path.name in str(refusal.value)
        assert_same(fresh.predictions({"b": STARTED_AT})["b"], "b", of_trial(1))
        assert fresh.trials().num_rows == 2
        fresh.keep_predictions({"c": of_trial(2)})
        fresh.compact()
        assert path.exists()
        assert set(fresh.predictions({"b": STARTED_AT, "c": STARTED_AT})) == {"b", "c"}
        path.unlink()
        assert Store(tmp_path).predictions({"a": STARTED_AT}) == {}

    def test_rows_that_are_gone_are_said_to_be(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "predictions" / "rows" / "t.parquet").unlink()
        with pytest.raises(FaultsError, match=r"t\.parquet must be there, with the labels of the rows, but is missing"):
            store.predictions({"a": STARTED_AT}, "test")
        assert store.predictions({"a": STARTED_AT}, "validation")["a"].num_rows == 3
        Store(tmp_path).keep_predictions({"c": of_trial(2)})  # writes them anew
        assert_same(store.predictions({"a": STARTED_AT})["a"], "a", of_trial(0))

    @pytest.mark.parametrize("damage", [torn, without_its_end])
    def test_rows_that_are_torn_are_said_to_be(
        self, store: Store, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        path = tmp_path / "predictions" / "rows" / "t.parquet"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(FaultsError, match=r"t\.parquet must be as adaptune wrote it"):
            store.predictions({"a": STARTED_AT})

    def test_rows_of_another_number_are_not_taken_for_those(self, store: Store, tmp_path: Path) -> None:
        shutil.copy(tmp_path / "predictions" / "rows" / "v.parquet", tmp_path / "predictions" / "rows" / "t.parquet")
        with pytest.raises(FaultsError, match=r"it has 3 rows, and .* has 4 predictions"):
            store.predictions({"a": STARTED_AT})

    def test_a_file_system_that_fails_is_not_taken_for_a_torn_file(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: Any, **options: Any) -> Any:
            raise OSError("connection reset")

        monkeypatch.setattr(pq, "read_metadata", fail)
        monkeypatch.setattr(Folder, "read", fail)
        with pytest.raises(FaultsError, match="must be readable, but connection reset"):
            Store(tmp_path).predictions({"a": STARTED_AT})


def test_numbers_of_any_size_are_read_back(tmp_path: Path) -> None:
    rows = rows_named(count=3)
    values = np.array([1e-30, -3.4e38, 0.1], np.float32)
    given = of_trial(test=Predictions(kind="regression", rows=rows, values=values))
    Store(tmp_path).keep_predictions({"a": given})
    found = Store(tmp_path).predictions({"a": STARTED_AT})["a"]
    assert found["prediction"].to_pylist() == values.astype(float).tolist()


def test_a_place_without_predictions_has_none(tmp_path: Path) -> None:
    Store(tmp_path).append([measured_record("a")])
    assert Store(tmp_path).predictions({"a": STARTED_AT}) == {}
    Store(tmp_path).keep_predictions({})
    assert not (tmp_path / "predictions").exists()
