"""`adaptune data`: what it shows of task folders, what it refuses, and the task.json that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import data, main
from trainables import tasks
from trainables.data import reachability
from trainables.faults import FaultsError

PAIRS = [(f"ticket {row} of the desk", ("billing", "bug", "other")[row % 3]) for row in range(240)]


def folder(path: Path, *, header: str = "body;kind", said: dict[str, Any] | None = None, repeated: int = 0) -> Path:
    """A folder separated by semicolons whose columns have names of their own, with rows of train again in test."""
    path.mkdir()
    cut = {"train": PAIRS[:120], "validation": PAIRS[120:180], "test": PAIRS[180 - repeated : 240 - repeated]}
    if repeated:
        cut["test"] = [*PAIRS[:repeated], *PAIRS[180 : 240 - repeated]]
    for split, rows in cut.items():
        lines = [header, *(f"{text};{label}" for text, label in rows)]
        (path / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if said is not None:
        (path / "task.json").write_text(json.dumps(said), encoding="utf-8")
    return path


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    return folder(tmp_path / "tickets", header="Text;Category", repeated=3)


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert main(["data", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)["tasks"]


def test_it_says_how_the_files_were_read_what_they_hold_and_what_is_odd(
    tickets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(tickets)]) == 0
    said = capsys.readouterr().out
    for part in (
        "tickets: classification, 3 classes, metric accuracy",
        "train.csv 120 rows, validation.csv 60 rows, test.csv 60 rows: separated by semicolons; UTF-8; "
        "text_a is 'Text', label is 'Category'",
        "majority baseline (accuracy)",
        "Word pieces of minilm: median ",
        "Warning 1, rows-in-two-splits: 3 of 60 rows of test stand in other splits too (train 3)",
        '"columns": {"text_a": "Text", "label": "Category"}',
    ):
        assert part in said


def test_as_json_it_has_the_same(tickets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (task,) = answer(capsys, tickets, "--max-length", 5)
    assert task["splits"]["train"]["classes"] == {"billing": 40, "bug": 40, "other": 40}
    assert task["readings"][0]["format"]["delimiter"] == ";"
    assert task["word_pieces"]["share_cut"] == 1.0
    assert [warning["name"] for warning in task["warnings"]] == ["cut-texts", "rows-in-two-splits"]
    assert task["fingerprint"] == tasks.load(str(tickets)).fingerprint


def test_what_is_silenced_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "Text;Category"
    by_task = folder(tmp_path / "a", header=header, repeated=3, said={"silence": ["rows-in-two-splits"]})
    by_argument = folder(tmp_path / "b", header=header, repeated=3)
    for task in answer(capsys, by_task, by_argument, "--silence", "rows-in-two-splits"):
        assert (task["warnings"], len(task["silenced"])) == ([], 1)
    assert main(["data", str(by_task)]) == 0
    assert "Silenced: 1 warning (rows-in-two-splits)" in capsys.readouterr().out


def test_an_unknown_warning_is_a_fault(tickets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", str(tickets), "--silence", "rows-in-two-split"]) == 2
    assert "did you mean 'rows-in-two-splits'?" in capsys.readouterr().err
    (tickets / "task.json").write_text('{"silence": ["alike"]}', encoding="utf-8")
    assert main(["data", str(tickets)]) == 2
    assert "task.json: silence: unknown warning 'alike'" in capsys.readouterr().err


def test_a_hub_that_is_away_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(path: str) -> None:
        assert not reachability.is_worth_asking()
        raise FaultsError(f"task {path}", ["away"])

    monkeypatch.setattr(reachability, "hub_answers", lambda: False)
    monkeypatch.setattr(data, "load", load)
    assert main(["data", "glue/cola"]) == 2
    assert "away" in capsys.readouterr().err


def test_what_cannot_be_read_is_refused_with_all_faults_after_the_others(
    tickets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = folder(tmp_path / "faulty")
    assert main(["data", str(faulty), str(tickets), "nowhere"]) == 2
    shown = capsys.readouterr()
    assert "tickets: classification" in shown.out
    assert 'say in task.json which column is which, as "columns": {"text_a": "body", "label": "kind"}' in shown.err
    assert "no such folder" in shown.err
    assert main(["data", str(faulty), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["faults"][str(faulty)]) == 7


class TestWriting:
    def test_the_rows_are_read_with_it_as_without(self, tickets: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = tasks.load(str(tickets))
        assert main(["data", str(tickets), "--write"]) == 0
        assert f"Written: {tickets / 'task.json'}" in capsys.readouterr().out
        after = tasks.load(str(tickets))
        assert after.fingerprint == before.fingerprint
        assert json.loads((tickets / "task.json").read_text(encoding="utf-8")) == {
            "name": "tickets",
            "kind": "classification",
            "label_names": ["billing", "bug", "other"],
            "metric": "accuracy",
            "columns": {"text_a": "Text", "label": "Category"},
            "delimiter": ";",
        }
        assert main(["data", str(tickets), "--write"]) == 0
        assert "says all of this, and is left as it is" in capsys.readouterr().out

    def test_what_was_declared_stays_and_what_is_new_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = {"notes": "of last year", "metric": "macro_f1", "label_names": ["other", "bug", "billing"]}
        path = folder(tmp_path / "tickets", header="text_a;label", said=said)
        before = tasks.load(str(path)).fingerprint
        assert main(["data", str(path), "--write"]) == 0
        assert "what it said stays, and new are name, kind, delimiter" in capsys.readouterr().out
        assert json.loads((path / "task.json").read_text(encoding="utf-8")).items() >= said.items()
        assert tasks.load(str(path)).fingerprint == before

    def test_what_was_declared_is_there_until_the_new_file_is_whole(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = folder(tmp_path / "tickets", header="text_a;label", said={"notes": "of last year"})

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        assert main(["data", str(path), "--write"]) == 2
        assert "task.json must be writable, but [Errno 28] No space left" in capsys.readouterr().err
        assert json.loads((path / "task.json").read_text(encoding="utf-8")) == {"notes": "of last year"}
        assert not [file for file in path.iterdir() if file.name.startswith(".")]

    def test_only_a_folder_has_a_place_for_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "toy/sentiment", "--write"]) == 2
        assert "--write: only a task folder has a task.json" in capsys.readouterr().err


@pytest.mark.thorough
def test_it_loads_neither_torch_nor_ray(tickets: Path) -> None:
    code = (
        f"import sys; from orchestrator.cli import main; assert main(['data', {str(tickets)!r}]) == 0; "
        "print(sorted({'torch', 'transformers', 'ray', 'mlflow', 'optuna', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
