"""The command from its arguments to its exit status, with parts that do as they are told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import NotMeasuredError
from benchmarks.__main__ import default_names
from benchmarks.gpu import command, requirements
from benchmarks.gpu.clock import Budget
from benchmarks.gpu.record import Record, measured
from benchmarks.gpu.sizes import REHEARSAL


def run_parts(tmp_path: Path, measures: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is on disk."""
    record = Record(tmp_path / "r.json", {}, list(measures))
    budget = Budget(60, dict.fromkeys(measures, 1.0))
    given = {"device": torch.device("cpu"), "sizes": REHEARSAL, "record": record, "scratch": tmp_path}
    status = command.run_parts(measures, budget, record, given)
    return status, json.loads(record.path.read_text(encoding="utf-8"))["parts"]


def good(run: Any) -> None:
    run.add({"K": 1}, {"step": measured(0.5, "s")})


def test_without_a_name_the_gpu_is_not_measured():
    assert "gpu" not in default_names()
    assert {"packing", "makespan", "startup"} <= set(default_names())


def test_a_part_that_breaks_or_cannot_be_measured_does_not_keep_the_others(tmp_path):
    def broken(run: Any) -> None:
        good(run)
        raise RuntimeError("out of luck")

    def impossible(run: Any) -> None:
        raise NotMeasuredError("pip install luck")

    def short(run: Any) -> None:
        run.leave_out({"K": 2}, {"step": "s"})

    status, parts = run_parts(tmp_path, {"a": broken, "b": impossible, "c": short, "d": good})
    assert status == 1
    assert [part["status"] for part in parts.values()] == ["failed", "not measured", "cut short", "finished"]
    assert parts["a"]["reason"].endswith("RuntimeError: out of luck\n")
    assert len(parts["a"]["points"]) == 1
    assert parts["b"]["reason"] == "pip install luck"
    assert parts["c"]["reason"] == "no time was left for: K 2"
    assert parts["c"]["points"][0]["measured"]["step"]["value"] is None
    assert all(part["seconds"]["unit"] == "s" for part in parts.values())


def test_an_interrupted_run_keeps_what_it_has_measured(tmp_path):
    def interrupted(run: Any) -> None:
        good(run)
        raise KeyboardInterrupt

    status, parts = run_parts(tmp_path, {"a": good, "b": interrupted, "c": good})
    assert status == 130
    assert [part["status"] for part in parts.values()] == ["finished", "interrupted", "waiting"]
    assert parts["b"]["points"] == parts["a"]["points"]
    assert parts["c"]["seconds"] == {"value": None, "unit": "s", "reason": "the part has not begun"}


def test_what_is_missing_is_said_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(requirements, "NEEDED", {"torch": "torch", "no_such_module": "no-such-package"})
    assert command.main(["--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "pip install no-such-package" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_library_that_only_some_parts_need_is_named_with_what_is_lost(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    (said,) = requirements.limits()
    assert said.startswith("scikit-learn is not installed: the sweep is scored by")


def test_a_task_that_is_no_folder_is_refused(tmp_path, monkeypatch, capsys):
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    given = ["--out", str(tmp_path / "out"), "--device", "cpu", "--task", str(tmp_path / "nowhere")]
    assert command.main(given) == 2
    assert "must be a task folder" in capsys.readouterr().err


def test_a_rehearsal_is_labelled_and_keeps_json_and_table(tmp_path, monkeypatch, capsys):
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(command, "_measures", lambda: dict.fromkeys(command.PARTS, good))
    assert command.main(["--out", str(tmp_path / "out"), "--device", "cpu", "--quick"]) == 0
    (path,) = (tmp_path / "out").glob("rehearsal-*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["kind"].startswith("REHEARSAL ON A CPU")
    assert content["card"]["name"] == {"value": None, "unit": "", "reason": "run on a CPU"}
    assert list(content["parts"]) == list(command.PARTS)
    assert content["seconds"]["value"] > 0
    assert {"taken_at", "commit", "machine", "processor", "cpus", "python", "versions", "settings"} <= set(content)
    assert path.with_suffix(".txt").read_text(encoding="utf-8").startswith("REHEARSAL ON A CPU")
    assert "== kernels: finished" in capsys.readouterr().out


def test_some_parts_alone_share_the_time_they_are_given(tmp_path, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    left: dict[str, float] = {}

    def look(run: Any) -> None:
        left[run.part] = run.deadline.left()

    monkeypatch.setattr(command, "_measures", lambda: dict.fromkeys(command.PARTS, look))
    given = ["--out", str(tmp_path), "--device", "cpu", "--parts", "memory,launches", "--limit", "500"]
    assert command.main(given) == 0
    assert list(left) == ["launches", "memory"]
    assert 200 < left["launches"] <= 250  # their weights are equal
    assert 400 < left["memory"] <= 500
    (path,) = tmp_path.glob("rehearsal-*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content["parts"]) == content["settings"]["parts"] == ["launches", "memory"]
    assert content["settings"]["time_limit"]["value"] == 500


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--parts", "launches,lunches"], "knows no part lunches; there are correctness, launches"),
        (["--limit", "0"], "--limit must be a number of seconds above 0, but got 0"),
    ],
)
def test_parts_and_limits_that_cannot_be_are_refused(given, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        command.main(["--out", str(tmp_path / "out"), *given])
    assert error.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("trials", "status", "rates"), [("1000", 0, 250), ("6", 2, None), ("0", 2, None)])
def test_the_sweep_has_as_many_trials_as_are_asked_for(trials, status, rates, tmp_path, monkeypatch, capsys):
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    seen: list[int] = []
    monkeypatch.setattr(
        command, "_measures", lambda: dict.fromkeys(command.PARTS, lambda run: seen.append(run.sizes.sweep_rates))
    )
    given = ["--out", str(tmp_path / "out"), "--device", "cpu", "--parts", "sweep", "--trials", trials]
    assert command.main(given) == status
    assert seen == ([rates] if rates else [])
    assert (tmp_path / "out").exists() is (status == 0)
    assert ("--trials must be a multiple of 4" in capsys.readouterr().err) is (status == 2)
