"""Stores whose lock, note of the engines or ablations are not what adaptune writes."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.store.identity import boot_id, pid_namespace

HUGE = 10**400


class Change(NamedTuple):
    """What is done to a store, and what must be said of it as a fault or, where it goes on, as a warning."""

    apply: Callable[[Path], None]
    said: tuple[str, ...] = ()
    warned: str = ""


def as_text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


HOLDER = {
    "host": socket.gethostname(),
    "pid": 2**22 + 5,  # beyond what Linux gives out
    "started_at": "2025-01-01T00:00:00+00:00",
    "birth": None,
    "token": "t",
}


def lock(content: Any, *said: str, warned: str = "") -> Change:
    def apply(store: Path) -> None:
        (store / "lock.json").write_bytes(content if isinstance(content, bytes) else as_text(content).encode())

    return Change(apply, said, warned)


LOCKS = {
    **{
        f"a lock {content!r}"[:40]: lock(as_text(content), "lock.json cannot be read", "is at work, delete")
        for content in ("", "{", None, 3, [], [1], "x", {}, {"host": "x"}, {**HOLDER, "more": 1}, "[" * 100_000)
    },
    "a lock in binary": lock(bytes(range(256)), "lock.json cannot be read"),
    **{
        f"a lock with {name} {value!r}"[:40]: lock({**HOLDER, name: value}, "lock.json cannot be read")
        for name, value in (
            ("pid", "1"), ("pid", None), ("pid", 0), ("pid", -1), ("pid", 1.5), ("pid", HUGE), ("host", 3),
            ("started_at", None), ("token", None), ("birth", 3), ("host", None), ("pid", [1]),
        )
    },
    "a lock of a living process": lock({**HOLDER, "pid": os.getpid()}, f"process {os.getpid()} on {HOLDER['host']}"),
    "a lock of another host": lock({**HOLDER, "host": "elsewhere"}, f"process {HOLDER['pid']} on elsewhere"),
    "a lock of a dead process": lock(
        {**HOLDER, "birth": f"{boot_id()}/1", "pid_namespace": pid_namespace()},
        warned="taking over the lock of process",
    ),
    "a lock of an older version": lock(HOLDER, f"process {HOLDER['pid']} on", "--take-over"),
}  # fmt: skip
NOTES = {
    f"a note {content!r}"[:40]: Change(
        lambda store, c=content: (store / "engines.json").write_bytes(as_text(c).encode())
    )
    for content in (None, 3, [], {}, {"host": 3}, {"engines": 3}, {"engines": [3]}, {"engines": [{}]}, "[" * 100_000)
}


def with_value(name: str, value: Any, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array([value] * len(table), kind)
        if name not in table.column_names:
            return table.append_column(name, column)
        return table.set_column(table.column_names.index(name), name, column)

    return change


def ablation(change: Callable[[pa.Table], pa.Table]) -> Change:
    def apply(store: Path) -> None:
        (path,) = store.glob("artifacts/*/ablation.parquet")
        pq.write_table(change(pq.read_table(path)), path)

    return Change(apply, warned="ablation")


ABLATIONS = {
    **{
        f"an ablation without {name}": ablation(lambda t, n=name: t.drop_columns([n]))
        for name in ("trial_id", "task", "split", "metric", "num_layers", "first_layer", "score", "score_difference")
    },
    "an ablation with a span twice": ablation(lambda t: pa.concat_tables([t, t])),
    "an ablation of more layers": ablation(with_value("num_layers", 12)),
    "an ablation of a billion layers": ablation(with_value("num_layers", 10**9)),
    "an ablation of no layers": ablation(with_value("num_layers", 0)),
    "an ablation of layers below none": ablation(with_value("first_layer", -1)),
    "an ablation of other things": ablation(lambda t: pa.table({"x": [1]})),
}
CASES = {**LOCKS, **NOTES, **ABLATIONS}


@pytest.mark.parametrize("name", [*LOCKS, *NOTES])
@pytest.mark.thinned(12)
def test_an_odd_lock_or_note_keeps_a_driver_out_and_no_reader(
    name: str, store: Path, call_on_store: Callable, snapshot: Callable
) -> None:
    case = CASES[name]
    case.apply(store)
    before = snapshot(store)
    looked = call_on_store("status", str(store), "--json")
    assert looked.status == 0 or "cannot be read" in looked.err, looked
    assert snapshot(store) == before
    resumed = call_on_store("resume", str(store))
    if case.said:
        resumed.assert_refused("store ", *case.said)
        assert snapshot(store) == before
    else:
        assert resumed.is_accepted, resumed
        assert any(case.warned in warning for warning in resumed.warnings) or not case.warned
        assert not (store / "lock.json").exists()


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.thinned(5)
def test_an_odd_ablation_is_left_out_with_a_warning(
    name: str, store: Path, call_on_store: Callable, snapshot: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing takes most of a report's time.
    monkeypatch.setattr("orchestrator.analysis.figures.render", lambda figure, form: b"<svg></svg>")
    CASES[name].apply(store)
    before = snapshot(store, but="report")
    ended = call_on_store("report", str(store), "--json")
    assert ended.status == 0, ended
    assert any("ablation" in warning for warning in ended.warnings), ended
    assert not any("ablation-" in path for path in json.loads(ended.out)["report"])
    assert snapshot(store, but="report") == before


def test_what_is_wrong_with_a_store_is_said_until_all_of_it_is_mended(
    store: Path, whole_store: Path, call_on_store: Callable
) -> None:
    (store / "plan.parquet").write_bytes(b"")
    (store / "lock.json").write_text("{")
    call_on_store("resume", str(store)).assert_refused("plan.parquet")
    shutil.copy(whole_store / "plan.parquet", store / "plan.parquet")
    call_on_store("resume", str(store)).assert_refused("lock.json")
    (store / "lock.json").unlink()
    assert call_on_store("resume", str(store)).is_accepted
