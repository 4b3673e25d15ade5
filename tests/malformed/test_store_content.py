"""Stores whose files can be read but do not hold what adaptune writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ODD = "must be as adaptune wrote it"


class Change(NamedTuple):
    """What is done to a store, and what must be said of it as a fault or, where it goes on, as a warning."""

    apply: Callable[[Path], None]
    said: tuple[str, ...] = ()
    warned: str = ""


# --- spec.json


def spec(content: Any, *said: str) -> Change:
    def apply(store: Path) -> None:
        text = content(json.loads((store / "spec.json").read_text())) if callable(content) else content
        (store / "spec.json").write_bytes(text if isinstance(text, bytes) else as_text(text).encode())

    return Change(apply, said)


def as_text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


SPECS = {
    **{
        f"spec {content!r}"[:30]: spec(as_text(content), "spec.json", ODD)
        for content in (
            None,
            3,
            [],
            [1],
            "",
            {},
            {"name": 3},
            {"name": None},
            {"name": ""},
            {"name": "a/b"},
            '"x"',
            "{",
        )
    },
    "a spec that climbs out": spec({"name": "../../x"}, "spec.json", ODD),
    "a very deep spec": spec("[" * 100_000, "spec.json", ODD),
    "a spec in latin-1": spec('{"name": "größe"}'.encode("latin-1"), "spec.json", ODD),
    "a spec in utf-16": spec('{"name": "small"}'.encode("utf-16"), "spec.json", ODD),
    "a spec of another sweep": spec(lambda values: {**values, "name": "stranger"}),
    "a spec with unknown keys": spec(lambda values: {**values, "future": {"x": 1}}),
    "a spec without methods": spec(lambda values: {"name": values["name"]}),
}
# What a resume says of a spec that can be looked at; status answers.
RESUMED = {
    "a spec with unknown keys": ("future: unknown key 'future'",),
    "a spec without methods": ("tasks: is required", "methods: is required"),
}


# --- plan.parquet


def plan(change: Callable[[pa.Table], pa.Table], *said: str) -> Change:
    def apply(store: Path) -> None:
        pq.write_table(change(pq.read_table(store / "plan.parquet")), store / "plan.parquet")

    return Change(apply, said)


def retyped(name: str, kind: pa.DataType, values: Any = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array([values] * len(table), kind) if values is not None else pa.nulls(len(table), kind)
        place = table.column_names.index(name)
        return table.set_column(place, name, column)

    return change


NEEDED = ("trial_id", "config_id", "task", "method", "config")
OTHERS = ("sweep", "seed", "backbone", "trained_params", "num_steps", "learning_rate")
PLANS = {
    **{
        f"a plan without {name}": plan(lambda t, n=name: t.drop_columns([n]), "plan.parquet", ODD, name)
        for name in NEEDED
    },
    **{f"a plan with null {name}": plan(retyped(name, pa.string()), "plan.parquet", ODD, name) for name in NEEDED},
    **{
        f"a plan with lists of {name}": plan(retyped(name, pa.list_(pa.int64()), [1]), "plan.parquet", ODD, name)
        for name in NEEDED
    },
    "a plan with a column renamed": plan(
        lambda t: t.rename_columns([{"trial_id": "trial"}.get(name, name) for name in t.column_names]), "plan.parquet"
    ),
    "a plan with a column twice": plan(lambda t: t.append_column("task", t["task"]), "plan.parquet", ODD, "task"),
    "a plan without columns": plan(lambda t: t.select([]), "plan.parquet", ODD),
    "a plan of other things": plan(lambda t: pa.table({"x": [1]}), "plan.parquet", ODD),
    "a plan without rows": plan(lambda t: t.slice(0, 0)),
    **{f"a plan without {name}": plan(lambda t, n=name: t.drop_columns([n])) for name in OTHERS},
    **{f"a plan with text for {name}": plan(retyped(name, pa.string(), "x")) for name in ("seed", "trained_params")},
    "a plan with further columns": plan(lambda t: t.append_column("future", pa.array(range(len(t))))),
    "a plan with a trial twice": plan(lambda t: pa.concat_tables([t, t])),
    "a plan with bytes for ids": plan(retyped("trial_id", pa.binary(), b"\xff\xfe"), "plan.parquet", ODD),
    "a plan of other trials": plan(retyped("trial_id", pa.string(), "stranger")),
}


# --- trials/*.parquet


def record(change: Callable[[pa.Table], pa.Table], *, is_read: bool = False) -> Change:
    """A change to the first record; what comes of it `is_read`, or left out with a warning that names the file."""

    def apply(store: Path) -> None:
        (path,) = store.glob("trials/part-00000001-*")
        pq.write_table(change(pq.read_table(path)), path)

    return Change(apply, warned="" if is_read else "part-00000001-")


def with_value(name: str, value: Any, kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array([value] * len(table), kind)
        if name not in table.column_names:
            return table.append_column(name, column)
        return table.set_column(table.column_names.index(name), name, column)

    return change


RECORDS = {
    **{
        f"a record without {name}": record(lambda t, n=name: t.drop_columns([n]))
        for name in ("trial_id", "status", "epochs")
    },
    **{
        f"a record of status {value!r}": record(with_value("status", value))
        for value in ("done", "", "COMPLETED", "planned ", 3)
    },
    "a record without a status": record(with_value("status", None, pa.string())),
    "a record without an id": record(with_value("trial_id", None, pa.string())),
    "a record with text for epochs": record(with_value("epochs", "x")),
    "a record with other epochs": record(with_value("epochs", [{"x": 1}]), is_read=True),
    "a record with text for its seed": record(with_value("seed", "zero")),
    "a record with text for a score": record(with_value("validation_score", "good")),
    "a record with a list of scores": record(with_value("validation_score", [0.5])),
    "a record with a status twice": record(lambda t: t.append_column("status", t["status"])),
    "a record of other things": record(lambda t: pa.table({"x": [1]})),
    "a record without columns": record(lambda t: t.select([])),
    "a record of an older schema": record(with_value("schema_version", 0), is_read=True),
    "a record of a later schema": record(with_value("schema_version", 99), is_read=True),
    "a record of no schema": record(lambda t: t.drop_columns(["schema_version"]), is_read=True),
    "a record with further columns": record(with_value("future", "x"), is_read=True),
    "a record with a struct more": record(with_value("future", {"x": [1]}, None)),
    "a record with whole numbers for scores": record(with_value("validation_score", 1), is_read=True),
    "a record without a score": record(with_value("validation_score", None, pa.float64()), is_read=True),
    "a record with NaN for a score": record(with_value("validation_score", float("nan")), is_read=True),
    "a record without a task": record(with_value("task", None, pa.string())),
    "a record of an unknown method": record(with_value("method", "adaptr"), is_read=True),
    "a record with text for an option": record(with_value("adapter_size", "large"), is_read=True),
    "no record": record(lambda t: t.slice(0, 0), is_read=True),
}


CASES = {**SPECS, **PLANS, **RECORDS}


def check(ended: Any, said: tuple[str, ...], store: Path, before: Mapping[str, Any], snapshot: Callable) -> None:
    """Refused with what must be said and without a trace, or not refused where nothing must be said."""
    if said:
        ended.assert_refused("store ", *said)
    if ended.status == 2:
        assert said, ended
        assert snapshot(store) == before


@pytest.mark.parametrize("name", [*SPECS, *PLANS])
@pytest.mark.thinned(16)
def test_an_odd_spec_or_plan_is_refused_or_read(
    name: str, store: Path, call_on_store: Callable, snapshot: Callable
) -> None:
    case = CASES[name]
    case.apply(store)
    before = snapshot(store)
    looked = call_on_store("status", str(store), "--json")
    check(looked, case.said, store, before, snapshot)
    assert snapshot(store) == before
    if name in RESUMED:
        call_on_store("resume", str(store)).assert_refused(*RESUMED[name])
        assert snapshot(store) == before
        return
    resumed = call_on_store("resume", str(store))
    if name in ("a plan of other trials",):
        resumed.assert_refused("a wider sweep must keep every planned trial", "1 of the 1")
        return
    check(resumed, case.said, store, before, snapshot)
    if resumed.is_accepted:
        assert call_on_store("status", str(store), "--json").status == 0


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.thinned(4)
def test_an_odd_record_is_read_or_left_out_with_a_warning(
    name: str, store: Path, call_on_store: Callable, snapshot: Callable
) -> None:
    case = CASES[name]
    case.apply(store)
    before = snapshot(store)
    exported, looked = (call_on_store(command, str(store), "--json") for command in ("export", "status"))
    for ended in (exported, looked):
        assert ended.status in (None, 0), ended
        assert any(case.warned in warning for warning in ended.warnings) == bool(case.warned), ended
    assert snapshot(store) == before
    counts = json.loads(looked.out)["counts"]
    assert counts["completed"] == (1 if case.warned or name == "no record" else 2)
    assert call_on_store("resume", str(store)).is_accepted
    assert call_on_store("status", str(store), "--json").status == 0


def test_a_record_of_an_unknown_metric_is_named(store: Path, call_on_store: Callable, snapshot: Callable) -> None:
    record(with_value("metric", "bleu")).apply(store)
    before = snapshot(store)
    call_on_store("status", str(store), "--json").assert_refused("unknown metric 'bleu'")
    assert snapshot(store) == before
