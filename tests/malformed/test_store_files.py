"""Stores of which a file is gone, torn, garbage, or something else altogether."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

READING = ("status", "export", "plan")
WRITING = ("resume", "run")
COMMANDS = (*READING, *WRITING)


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def with_a_hole(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * (len(whole) - 12) + whole[-8:])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def of_another_kind(path: Path) -> None:
    """JSON where Parquet should be, and Parquet where JSON should be."""
    store = next(parent for parent in path.parents if (parent / "trials").exists())
    other = next(store.glob("trials/*")) if path.suffix == ".json" else store / "spec.json"
    path.write_bytes(other.read_bytes() if other.exists() else b"{}")


DAMAGES = {
    each.__name__.replace("_", " "): each
    for each in (
        gone, emptied, torn, without_its_end, with_a_hole, garbage, a_folder, a_link_to_nowhere, of_another_kind
    )
}  # fmt: skip
DAILY = {"torn", "of another kind"}
GONE = {"gone", "a folder", "a link to nowhere"}  # nothing is there that could be read


class Part(NamedTuple):
    """A file of a store. What is `essential` is said to be odd; what is a `record` is left out, with a warning."""

    pattern: str
    is_essential: bool = False
    is_record: bool = False


PARTS = {
    "the spec": Part("spec.json", is_essential=True),
    "the plan": Part("plan.parquet", is_essential=True),
    "the first record": Part("trials/part-00000001-*", is_record=True),
    "the last record": Part("trials/part-00000003-*", is_record=True),
    "another sweep's spec": Part("sweeps/other/spec.json"),
    "another sweep's plan": Part("sweeps/other/plan.parquet"),
    "a superseded record": Part("superseded/*"),
    "an earlier spec": Part("history/*-spec.json"),
    "an earlier plan": Part("history/*-plan.parquet"),
    "an ablation": Part("artifacts/*/ablation.parquet"),
    "predictions": Part("predictions/part-00000001-*"),
    "the rows of predictions": Part("predictions/rows/t.parquet"),
    "the note of the engines": Part("engines.json"),
    "the report": Part("report/report.html"),
}
CASES = {
    f"{part}: {damage}, {command}": (PARTS[part], damage, command)
    for part in PARTS
    for damage in DAMAGES
    for command in COMMANDS
    if PARTS[part].is_essential
    or (
        command in ("status", "resume") and (PARTS[part].is_record or damage in ("gone", "torn", "garbage", "a folder"))
    )
}


@pytest.fixture
def arguments(sound: Callable, store: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """The command line of a command on the store."""
    values = {**sound(), "methods": [*sound()["methods"], "bitfit"]}
    (tmp_path / "sweep.json").write_text(json.dumps(values), encoding="utf-8")
    sweep = str(tmp_path / "sweep.json")
    lines = {
        "status": ["status", str(store), "--json"],
        "export": ["export", str(store), "--json"],
        "report": ["report", str(store), "--json"],
        "plan": ["plan", sweep, "--store", str(store), "--devices", "1", "--json"],
        "resume": ["resume", str(store)],
        "run": ["run", sweep, "--store", str(store)],
    }
    return lines.__getitem__


@pytest.fixture
def restore(store: Path, whole_store: Path) -> Callable[[], None]:
    """Makes the spoiled store whole again."""

    def again() -> None:
        shutil.rmtree(store)
        shutil.copytree(whole_store, store)

    return again


@pytest.mark.parametrize(
    "damages", [DAILY, pytest.param(DAMAGES.keys() - DAILY, marks=pytest.mark.thorough)], ids=["daily", "others"]
)
@pytest.mark.parametrize("name", PARTS)
def test_a_store_with_a_damaged_file_is_refused_or_answers_for_the_rest(
    name: str,
    damages: Collection[str],
    store: Path,
    restore: Callable,
    arguments: Callable,
    call_on_store: Callable,
    snapshot: Callable,
    subtests: pytest.Subtests,
) -> None:
    """Commands that leave the store as it was share a damaged one."""
    damaged, before = "", {}
    for case, (part, damage, command) in CASES.items():
        if part is not PARTS[name] or damage not in damages:
            continue
        with subtests.test(case):
            if damaged != damage:
                restore()
                (path,) = store.glob(part.pattern)
                DAMAGES[damage](path)
                damaged, before = damage, snapshot(store)
            ended = call_on_store(*arguments(command))
            if command in READING or ended.status == 2:
                assert snapshot(store) == before
            else:
                damaged = ""
            check_answer(ended, part, path, damage, command)
            if ended.is_accepted:  # what was begun can be looked at
                assert call_on_store(*arguments("status")).status in (0, 2)


def check_answer(ended: Any, part: Part, path: Path, damage: str, command: str) -> None:
    assert ended.status in (None, 0, 2), ended
    if ended.status == 2:
        assert not part.is_record, "a torn record is no reason to refuse"
        ended.assert_refused("1 fault\n", "store ", path.name if damage not in GONE else "")
        return
    if part.is_essential:
        assert damage in GONE, "an odd plan or spec must not be taken for one"
    if part.is_record and damage not in GONE:
        assert any(path.name in warning for warning in ended.warnings), ended
    if command == "status":
        answer = json.loads(ended.out)
        assert answer["planned_trials"] == (0 if part is PARTS["the plan"] else 4)
        lost = {"the first record": "completed", "the last record": "failed"}
        expected = {"completed": 2, "failed": 1, "planned": 1}
        for name, status in lost.items():
            if part is PARTS[name]:
                expected = {**expected, status: expected[status] - 1, "planned": 2}
        if not part.is_essential:
            assert answer["counts"] == {status: count for status, count in expected.items() if count}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.thinned(2)
def test_a_report_is_written_of_what_can_be_read(
    damage: str,
    store: Path,
    arguments: Callable,
    call_on_store: Callable,
    snapshot: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.analysis.figures.render", lambda figure, form: b"<svg></svg>")  # takes long
    for pattern in (
        "trials/part-00000001-*", "artifacts/*/ablation.parquet", "predictions/part-00000001-*", "report/report.html"
    ):  # fmt: skip
        (path,) = store.glob(pattern)
        DAMAGES[damage](path)
    before = snapshot(store, but="report")
    ended = call_on_store(*arguments("report"))
    assert snapshot(store, but="report") == before
    if ended.status == 2:  # where the page should be, something else is
        ended.assert_refused("report")
        assert damage in ("a folder", "a link to nowhere")
    else:
        assert json.loads(ended.out)["counts"] == {"completed": 1, "failed": 1, "planned": 2}


def names_in_the_way(store: Path) -> None:
    for place in (
        "",
        "trials",
        "sweeps",
        "sweeps/other",
        "history",
        "superseded",
        "artifacts",
        "planned",
        "report",
        "predictions",
    ):
        (store / place).mkdir(exist_ok=True)
        for name in ("notes.txt", ".hidden", "größe 🐢", "part-1.parquet", "x.parquet", ".part-00000009-0.parquet.tmp"):
            (store / place / name).write_bytes(b"not ours")
        (store / place / "a folder").mkdir()
    (store / "trials" / "part-00000009-0123abcd.parquet").symlink_to("part-00000009-0123abcd.parquet")


@pytest.mark.parametrize("command", COMMANDS)
def test_foreign_files_are_left_alone(
    command: str, store: Path, arguments: Callable, call_on_store: Callable, snapshot: Callable
) -> None:
    names_in_the_way(store)
    foreign = {path: data for path, data in snapshot(store).items() if data == b"not ours" and ".tmp" not in path}
    ended = call_on_store(*arguments(command))
    assert ended.status in (None, 0), ended
    if command in ("status", "resume"):
        assert any("x.parquet" in warning for warning in ended.warnings)
    assert foreign.items() <= snapshot(store).items()


FOLDERS = ("trials", "sweeps", "history", "superseded", "artifacts", "report", "planned", "predictions")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("what", ["a file", "nothing"])
@pytest.mark.thinned(2)
def test_a_folder_that_is_none(
    what: str,
    folder: str,
    store: Path,
    restore: Callable,
    arguments: Callable,
    call_on_store: Callable,
    snapshot: Callable,
    subtests: pytest.Subtests,
) -> None:
    """Commands that leave the store as it was share one."""
    is_spoiled, before = False, {}
    for command in COMMANDS:
        with subtests.test(command):
            if not is_spoiled:
                restore()
                if (store / folder).exists():
                    shutil.rmtree(store / folder)
                if what == "a file":
                    (store / folder).write_bytes(b"in the way")
                is_spoiled, before = True, snapshot(store)
            ended = call_on_store(*arguments(command))
            assert ended.status in (None, 0, 2), ended
            if ended.status == 2:
                assert what == "a file" or (folder, command) == ("trials", "export")
                ended.assert_refused(folder if what == "a file" else "there must be a completed trial to export")
            if command in READING or ended.status == 2:
                assert snapshot(store) == before
            else:
                is_spoiled = False


PLACES: Mapping[str, tuple[str, str]] = {
    "nothing": ("nowhere", "no sweep stored here"),
    "an empty folder": ("empty", "no sweep stored here"),
    "a file": ("file", "a store must be a folder or a bucket, but"),
    "below a file": ("file/store", "store "),
    "a link to itself": ("circle", "store "),
    "an empty text": ("", "the store must be a path or a URI, but got an empty text"),
    "an unknown scheme": ("ftp://host/x", "'ftp://host/x' is not a place to store a sweep"),
    "half a URI": ("://", "is not a place to store a sweep"),
    "a zero byte": ("a\x00b", "the store must be a path or a URI, but got 'a\\x00b'"),
    "a name without end": ("x" * 5000, "store"),
    "of nobody": ("~nobody-here/x", "no sweep stored here"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_without_a_store_is_refused(
    place: str,
    call_on_store: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Callable,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "circle").symlink_to("circle")
    before = snapshot(tmp_path)
    reference, said = PLACES[place]
    for command in ("status", "report", "export", "resume"):
        with subtests.test(command):
            ended = call_on_store(command, reference)
            is_nowhere = command == "resume" and ("no sweep" in said or "a bucket" in said)
            ended.assert_refused("there must be a store to resume" if is_nowhere else said)
            assert snapshot(tmp_path) == before


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), pattern=st.sampled_from(["spec.json", "plan.parquet", "trials/part-00000002-*", "engines.json"]))
@pytest.mark.thorough
def test_a_file_damaged_anywhere_is_said_or_read(
    data: st.DataObject, pattern: str, whole_store: Path, call_on_store: Callable, tmp_path: Path, snapshot: Callable
) -> None:
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    store = Path(shutil.copytree(whole_store, tmp_path / "store"))
    (path,) = store.glob(pattern)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:])
    before = snapshot(store)
    for command in (["status", str(store), "--json"], ["resume", str(store)]):
        ended: Any = call_on_store(*command)
        assert ended.status in (None, 0, 2), ended
        if ended.status == 2:
            ended.assert_refused(" fault")
            assert snapshot(store) == before
