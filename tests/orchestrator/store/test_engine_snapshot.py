"""The note of what the engines do: there while their driver is, and never in anybody's way."""

from __future__ import annotations

import json
import os
import socket

import pytest

from orchestrator.engine_status import EngineStatus
from orchestrator.store import Store
from orchestrator.store.engine_snapshot import NOTE

ENGINES = (
    EngineStatus(engine="h/cpu", task="trec", method="adapter", num_trials=4, limit=8, examples_per_second=812.5),
    EngineStatus(engine="h/cpu"),
)


def test_another_reader_sees_what_the_driver_noted_last_until_it_ends(tmp_path):
    driver, reader = Store(tmp_path), Store(tmp_path)
    with driver.lock():
        assert reader.engine_snapshot() is None
        driver.write_engine_snapshot(ENGINES[:1])
        driver.write_engine_snapshot(ENGINES)
        seen = reader.engine_snapshot()
        assert seen.engines == ENGINES
        assert (seen.host, seen.pid) == (socket.gethostname(), os.getpid())
        assert 0 <= seen.age_s < 60
        driver.remove_engine_snapshot()
        assert reader.engine_snapshot() is None
        driver.remove_engine_snapshot()
    assert list(tmp_path.iterdir()) == []


def test_the_note_of_a_driver_that_was_killed_is_not_shown(tmp_path):
    store = Store(tmp_path)
    store.write_engine_snapshot(ENGINES)
    assert store.engine_snapshot() is None
    note = json.loads((tmp_path / NOTE).read_text())
    (tmp_path / NOTE).write_text(json.dumps({**note, "pid": note["pid"] + 1}))
    with store.lock():  # by its successor, which has noted nothing yet
        assert store.engine_snapshot() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"engines": [{"engin": 1}]}',
        '{"host": "h", "pid": 1, "written_at": "then", "engines": []}',
        '{"host": "h", "pid": 1, "written_at": 3, "engines": []}',
        '{"host": "h", "pid": 1, "written_at": "2025-01-02", "engines": [{"engine": "e", "num_trials": "many"}]}',
    ],
)
def test_a_note_that_cannot_be_understood_is_left_aside(tmp_path, text):
    store = Store(tmp_path)
    with store.lock():
        (tmp_path / NOTE).write_text(text)
        assert store.engine_snapshot() is None


def test_a_note_that_cannot_be_written_stops_nothing(failing, tmp_path, caplog):
    handler, filesystem = failing
    store = Store(str(tmp_path), filesystem=filesystem)
    handler.after = 0
    with caplog.at_level("INFO"):
        store.write_engine_snapshot(ENGINES)
    store.remove_engine_snapshot()
    assert "could not be written" in caplog.text
    assert store.engine_snapshot() is None
