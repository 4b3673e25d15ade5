"""The command line before any command begins: its version, its help, and faults of what was typed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli import main, services
from orchestrator.cli.app import app
from orchestrator.cli.options import SWEEP_FILE


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"adaptune {version('adaptune')}\n"


@pytest.mark.parametrize("arguments", [["-h"], ["plan", "-h"], ["plan", "--help"]])
def test_help_has_a_short_name_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan"], "adaptune: Missing argument 'SWEEP'; `adaptune plan --help` shows what it takes\n"),
        (["ui", "--port", "x"], "; `adaptune ui --help` shows what it takes\n"),
        (["plan", "mine.yaml", "--stor", "x"], "--store); `adaptune plan --help` shows what it takes\n"),
        (["pla"], "adaptune: No such command 'pla'. Did you mean 'plan'?\n"),
    ],
)
def test_a_fault_of_what_was_typed_says_where_to_look(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("command", ["plan", "simulate", "run", "resume", "sequence", "submit"])
def test_whoever_takes_a_sweep_file_says_that_python_is_executed(command: str) -> None:
    params = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert [each.name for each in params if SWEEP_FILE in (getattr(each, "help", None) or "")] in (["sweep"], ["tasks"])
    assert "executed" in SWEEP_FILE


class OfAnotherProcess(Exception):
    """As Ray raises what an actor raised: its words are that process's whole traceback."""

    cause = TimeoutError("the engines did not start within 600 s; Ray has free: {'CPU': 2.0}.\nAnd more.")

    def __str__(self) -> str:
        return "ray::Pool.ready()\n  File x, line 1\nTimeoutError: the engines"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("a bug"), "RuntimeError: a bug"),
        (AssertionError(), "AssertionError"),
        (OfAnotherProcess(), "TimeoutError: the engines did not start within 600 s; Ray has free: {'CPU': 2.0}"),
    ],
    ids=["a bug", "without words", "of another process"],
)
def test_an_error_that_nobody_foresaw_is_one_sentence_and_the_way_on(
    error: Exception,
    told: str,
    home: Path,
    write_sweep: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("orchestrator.cli.run.execute", fail)
    assert main(["run", write_sweep(), "--store", "here", "--json"]) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    *_, way_on, sentence = shown.err.splitlines()
    assert way_on.endswith("What is missing is trained by:  adaptune resume here")
    assert sentence.startswith(f"adaptune: ended by an error, {told} (test_usage.py, line ")
    assert sentence.endswith("); ADAPTUNE_LOG=debug shows its traceback")


def test_no_help_text_holds_what_the_documentation_would_take_for_html() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    texts = [getattr(param, "help", None) or "" for each in commands.values() for param in each.params]
    assert len(texts) > 100
    assert [text for text in texts if "<" in text] == []


@pytest.mark.parametrize("is_there", [True, False])
def test_pages_over_nothing_say_so(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ended:
        pid = 2**30  # nobody's

        def __init__(self, *_: object, **__: object) -> None: ...

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(services.subprocess, "Popen", Ended)
    monkeypatch.setattr(services.signal, "signal", lambda *_: None)
    if is_there:
        (tmp_path / "mlflow.db").write_bytes(b"")
    assert main(["ui", "--port", "5001", "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]) == 0
    assert ("Nothing is recorded there yet" in capsys.readouterr().out) is not is_there
