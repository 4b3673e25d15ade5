"""Whatever is wrong: one message, every fault in it, exit status 2, nothing started and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main


def refused(arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Standard error of a command that must be refused without a trace."""
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "cache" not in path.parts}
    assert main(arguments) == 2
    after = {path: path.stat().st_mtime_ns for path in home.rglob("*") if "cache" not in path.parts}
    assert after == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_every_fault_of_a_sweep_is_in_one_message(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_sweep(
        backbne="minilm",
        tasks=["toy/sentimnt", "no/such/folder"],
        seeds=[0, -1],
        space={"learning_rate": {"grid": []}, "num_epochs": 0, "epochs": 3},
        methods=[{"adaptr": {}}, {"adapter": {"adapter_siz": 2}}, {"top_layers": {"num_layers": {"grid": [1, 9]}}}],
        search={"algorithm": "gird"},
    )
    message = refused(["run", sweep], home, capsys)
    for part in (
        "backbne", "did you mean 'backbone'", "toy/sentimnt", "no/such/folder", "seeds.1", "learning_rate",
        "at least one value", "num_epochs", "'adaptr'", "did you mean 'adapter'", "adapter_siz", "num_layers",
        "but got 9", "gird",
    ):  # fmt: skip
        assert part in message, (part, message)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("train.csv", "text_a,label\n", "train"),  # 0 rows
        ("train.csv", "text_a,label\n,0\nb,1\n", "text"),  # an empty text
        ("train.csv", "text_a,label\na,0\nb,7\n", "label"),  # a label out of range
        ("train.csv", "words,label\na,0\nb,1\n", "text_a"),  # a missing column
        ("task.json", '{"metric": "acuracy", "kind": "classification"}', "acuracy"),
    ],
)
def test_a_faulty_task_folder_is_refused(
    file: str, text: str, expected: str, home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "faulty"
    folder.mkdir()
    good = "text_a,label\na,0\nb,1\n"
    (folder / "train.csv").write_text(good)
    (folder / "validation.csv").write_text(good)
    (folder / "task.json").write_text('{"kind": "classification", "num_labels": 2}')
    (folder / file).write_text(text)
    assert expected in refused(["run", write_sweep(tasks=[str(folder)])], home, capsys)


def test_a_missing_split_is_refused(home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "half").mkdir()
    (home / "half" / "train.csv").write_text("text_a,label\na,0\nb,1\n")
    assert "validation" in refused(["run", write_sweep(tasks=[str(home / "half")])], home, capsys)


def test_an_unknown_backbone_is_refused_with_the_packaged_ones(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "minilm" in refused(["run", write_sweep(backbone="./nowhere")], home, capsys)


def test_a_place_that_cannot_be_written_is_refused(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").write_text("in the way")
    message = refused(["run", write_sweep(), "--store", str(home / "file" / "store")], home, capsys)
    assert "writ" in message or "folder" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nowhere.yaml"],
        ["run"],
        ["runn", "quickstart"],
        ["status", "nowhere"],
        ["report", "nowhere"],
        ["resume", "nowhere"],
        ["export", "nowhere"],
        ["plan", "quickstart", "--set", "no equals sign"],
        ["plan", "quickstart", "--devices", "0"],
        ["plan", "quickstart", "--devices", "99999999999999999999999"],
        ["measure", "nowhere", "--threads", "99999999999999999999999"],
        ["plan", "quickstart", "--store", "no-utf-8-\udcff"],
        ["status", "no-utf-8-\udcff"],
        ["sequence", "toy/sentiment", "toy/topic", "--store", "~nobody-here/x"],
        ["sequence", "toy/sentiment", "toy/topic", "--store", "a\0b"],
        ["sequence", "toy/sentiment", "toy/topic", "--seeds", "99999999999999999999999"],
    ],
)
def test_a_faulty_command_line_is_refused(arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(arguments, home, capsys)


def test_debugging_shows_what_this_product_says_and_of_other_libraries_no_debugging() -> None:
    script = (
        "import logging\n"
        "from orchestrator.cli import main\n"
        "main(['--version'])\n"
        "logging.getLogger('trainables.data').debug('said')\n"
        "logging.getLogger('matplotlib').debug('not said')\n"
        "logging.getLogger('matplotlib').info('said too')\n"
    )
    told = {**os.environ, "ADAPTUNE_LOG": "debug"}
    done = subprocess.run([sys.executable, "-c", script], env=told, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["trainables.data: said", "matplotlib: said too"]


def test_a_level_of_the_log_that_is_none_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTUNE_LOG", "verbose")
    assert main(["status", "nowhere"]) == 2
    assert "ADAPTUNE_LOG must be one of debug, info, warning, error, critical, but it is 'verbose'" in (
        capsys.readouterr().err
    )
