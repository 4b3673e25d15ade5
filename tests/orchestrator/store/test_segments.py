"""Adding a record costs the same however many there are, and what is read stays what was added."""

from __future__ import annotations

import random

import pytest

from orchestrator.store import Store
from orchestrator.store.files import Folder
from orchestrator.store.segments import MERGE_EVERY, Segments
from tests.factories import measured_record


@pytest.fixture
def counted(failing, monkeypatch):
    """A file system, and how often it was asked to list a folder and to write a file."""
    handler, filesystem = failing
    calls = {"list": 0, "write": 0, "read": 0}

    def counting(kind, method):
        def call(*arguments):
            calls[kind] += 1
            return method(*arguments)

        return call

    for kind, name in (
        ("list", "get_file_info_selector"),
        ("write", "open_output_stream"),
        ("read", "open_input_file"),
    ):
        monkeypatch.setattr(handler, name, counting(kind, getattr(handler, name)))
    return calls, filesystem


def _append(store, first, count, batch=1):
    for start in range(first, first + count, batch):
        store.append([measured_record(f"t{number}") for number in range(start, min(start + batch, first + count))])


def test_adding_a_record_lists_nothing_and_reads_nothing_but_the_lock(tmp_path, counted):
    calls, filesystem = counted
    store = Store(str(tmp_path), filesystem=filesystem)
    with store.lock(only_driver=True):
        _append(store, 0, 3)
        calls.update(dict.fromkeys(calls, 0))
        _append(store, 3, 20)
        assert (calls["list"], calls["write"]) == (0, 20)
        assert calls["read"] <= 21  # the lock, before each write, and once more by its thread


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.thinned(1)
def test_there_are_never_many_segments_and_each_record_is_rewritten_a_few_times(tmp_path, monkeypatch, batch):
    monkeypatch.setattr("orchestrator.store.segments.MERGE_EVERY", 4)
    store, number = Store(tmp_path), 70
    rewritten, most = 0, 0
    replace = Segments.replace

    def counting(self, names, rows):
        nonlocal rewritten
        rewritten += rows.num_rows
        replace(self, names, rows)

    monkeypatch.setattr(Segments, "replace", counting)
    with store.lock():
        for start in range(0, number, 10):
            _append(store, start, 10, batch)
            most = max(most, len(list((tmp_path / "trials").iterdir())))
        assert [r.trial_id for r in store.records()] == [f"t{i}" for i in range(number)]
    assert most <= 4 + 6  # log2(70 / 4), and the newest
    assert rewritten <= 8 * number
    assert [r.trial_id for r in Store(tmp_path).records()] == [f"t{i}" for i in range(number)]


def test_segments_of_any_size_are_merged_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.store.segments.MERGE_EVERY", 3)
    draw, store, first = random.Random(0), Store(tmp_path), 0
    with store.lock():
        for _ in range(40):
            count = draw.choice([1, 1, 2, 9])
            _append(store, first, count, count)
            first += count
    assert Store(tmp_path).trials()["trial_id"].to_pylist() == [f"t{i}" for i in range(first)]


def test_a_write_that_is_tried_again_leaves_one_record_though_the_first_had_succeeded(tmp_path, monkeypatch):
    store = Store(tmp_path)
    write = Folder.write
    answers = iter([OSError("the answer was lost")])

    def lossy(self, name, content, *, durable=False):
        write(self, name, content, durable=durable)
        if name.startswith("part-") and (error := next(answers, None)):
            raise error

    monkeypatch.setattr(Folder, "write", lossy)
    with store.lock():
        with pytest.raises(OSError, match="lost"):
            store.append([measured_record("a")])
        store.append([measured_record("a")])
        store.append([measured_record("b")])
    assert len(list((tmp_path / "trials").iterdir())) == 2
    assert Store(tmp_path).trials()["trial_id"].to_pylist() == ["a", "b"]


@pytest.mark.thorough
def test_a_merge_that_fails_stops_no_append_and_is_made_up_for(tmp_path, failing, caplog):
    handler, filesystem = failing
    store = Store(str(tmp_path), filesystem=filesystem)
    with store.lock(only_driver=True):
        _append(store, 0, MERGE_EVERY - 1)
        handler.after = 2  # room for one more record, and no more
        store.append([measured_record("last")])
        handler.after = None
        assert "could not be merged" in caplog.text
        assert len(list((tmp_path / "trials").glob("part-*"))) == MERGE_EVERY
        _append(store, MERGE_EVERY, MERGE_EVERY)
        assert len(list((tmp_path / "trials").glob("part-*"))) == 1
    assert len(Store(tmp_path).statuses()) == 2 * MERGE_EVERY
