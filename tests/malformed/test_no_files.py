"""What lies where a file should and is none: a pipe that nobody writes to, or more than any memory holds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path.name}.pipe")


def a_tebibyte(path: Path) -> None:
    """Of zeros, which no disk has to hold."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


CASES = {
    pipe: "is a pipe, a socket or a device and not a file",
    link_to_a_pipe: "is a pipe, a socket or a device and not a file",
    a_tebibyte: "has 1,099,511,627,776 bytes",
}


@pytest.mark.parametrize("put", CASES)
@pytest.mark.parametrize("name", ["config.json", "modules.json", "tokenizer.json", "added_tokens.json", "merges.txt"])
def test_of_a_backbone(
    name: str, put: Callable[[Path], None], sound: Callable, call: Callable, home: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sound()["backbone"], tmp_path / "encoder"))
    (folder / name).unlink(missing_ok=True)
    put(folder / name)
    (tmp_path / "sweep.json").write_text(json.dumps({**sound(), "backbone": str(folder)}), encoding="utf-8")
    call("plan", str(tmp_path / "sweep.json")).assert_refused(f"{name} {CASES[put]}")


@pytest.mark.parametrize("put", CASES)
def test_of_a_task(put: Callable[[Path], None], good_folder: Path, call: Callable, home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good_folder, tmp_path / "task"))
    put(folder / "task.json")
    call("data", str(folder)).assert_refused(f"task.json cannot be read: task.json {CASES[put]}")


def test_rows_of_zeros_alone_are_none(good_folder: Path, call: Callable, home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good_folder, tmp_path / "task"))
    (folder / "train.jsonl").unlink()
    a_tebibyte(folder / "train.csv")
    call("data", str(folder)).assert_refused("train.csv cannot be read: begins with zero bytes alone")


@pytest.mark.parametrize("ending", [".yaml", ".json", ".py"])
def test_of_a_sweep(ending: str, call: Callable, home: Path, tmp_path: Path) -> None:
    a_tebibyte(tmp_path / f"sweep{ending}")
    call("run", str(tmp_path / f"sweep{ending}")).assert_refused(f"sweep{ending} has 1,099,511,627,776 bytes")


@pytest.mark.parametrize("put", CASES)
def test_of_a_fused_adapter(
    put: Callable[[Path], None], sound: Callable, call: Callable, home: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "adapter_config.json")
    methods = [{"adapter_fusion": {"adapters": f"{tmp_path / 'one'},{tmp_path / 'two'}"}}]
    (tmp_path / "sweep.json").write_text(json.dumps({**sound(), "methods": methods}), encoding="utf-8")
    call("plan", str(tmp_path / "sweep.json")).assert_refused(f"adapter_config.json {CASES[put]}")


def test_word_vectors_that_are_none(sound: Callable, call: Callable, home: Path, tmp_path: Path) -> None:
    pipe(tmp_path / "pipe.txt")
    a_tebibyte(tmp_path / "zeros.txt")
    methods = [{"no_bert": {"vectors": {"grid": [str(tmp_path / "pipe.txt"), str(tmp_path / "zeros.txt")]}}}]
    (tmp_path / "sweep.json").write_text(json.dumps({**sound(), "methods": methods}), encoding="utf-8")
    call("plan", str(tmp_path / "sweep.json")).assert_refused("pipe.txt", "zeros.txt")


@pytest.mark.parametrize("name", ["plan.parquet", "predictions/rows/t.parquet", "data_warnings.parquet"])
def test_of_a_store(name: str, store: Path, call: Callable, home: Path) -> None:
    (store / name).unlink(missing_ok=True)
    pipe(store / name)
    for command in ("status", "report"):
        ended = call(command, str(store))
        assert ended.status in (0, 2), ended
        assert ended.status == 0 or f"{name} is a pipe, a socket or a device" in ended.err


def test_a_store_that_memory_does_not_hold(store: Path, call: Callable, home: Path) -> None:
    a_tebibyte(store / "spec.json")
    call("status", str(store)).assert_refused(
        "spec.json has 1,099,511,627,776 bytes, more than the memory of this machine"
    )


@pytest.mark.parametrize("command", ["export", "paper"])
def test_a_place_to_write_is_one_as_a_shell_has_it(
    command: str, store: Path, call_on_store: Callable, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for out in ("", "a\0b", "~nobody-here/x"):
        call_on_store(command, str(store), "--out", out).assert_refused("--out: must be a path, but")
    pipe(store / "pipe")
    monkeypatch.setenv("HOME", str(store))
    call_on_store(command, str(store), "--out", "~/pipe/below").assert_refused(f"{store}/pipe")
    assert not (home / "~").exists()


def test_the_home_of_nobody_holds_nothing(sound: Callable, call: Callable, home: Path, tmp_path: Path) -> None:
    call("serve", "--adapters", "~nobody-here/x").assert_refused("--adapters: must be a path, but ~nobody-here is")
    methods = [{"no_bert": {"vectors": "~nobody-here/x"}}]
    (tmp_path / "sweep.json").write_text(json.dumps({**sound(), "methods": methods}), encoding="utf-8")
    call("plan", str(tmp_path / "sweep.json")).assert_refused("no_bert.vectors: must be a readable file")


def test_a_place_that_cannot_be_written_is_said_before_a_model_is_trained(
    store: Path, call_on_store: Callable, home: Path
) -> None:
    call_on_store("export", str(store), "--out", "/proc/here").assert_refused("--out: must be a folder that can be")
    assert call_on_store("export", str(store), "--out", str(home / "new" / "place")).is_accepted
    assert not (home / "new").exists()
