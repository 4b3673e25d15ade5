"""What others have named never reaches the terminal raw: no escape sequence, no markup."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from orchestrator.analysis.text.visible import visible
from orchestrator.cli import main
from orchestrator.cli.app import TextLines
from orchestrator.cli.screen import console
from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.record import TrialStatus
from orchestrator.store import Store
from tests.factories import trial_record

HOSTILE = "[red]evil[/red]\x1b[2J\x1b]0;title\x07\x9b31m\u202etxt"
SEEN = "[red]evil[/red]\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\u202etxt"


@given(text=st.text())
def test_what_can_be_seen_stays_and_the_rest_is_escaped(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert not any((ord(each) < 32 and each not in "\n\t") or 127 <= ord(each) < 160 for each in shown)
    if text.isprintable():
        assert shown == text


def test_other_scripts_and_emoji_are_text() -> None:
    for text in ("größe 🐢 👩\u200d🔬", "情感分析", "עברית", "tab\tand\nline"):
        assert visible(text) == text


def test_a_table_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[red]head[/red]\x1b[2J", title="[b]title\x9b1m")
    table.add_row("[link=http://x]cell\x1b[0m")
    console().print(table)
    console().print(HOSTILE.replace("\x07", ""), soft_wrap=True)  # rich itself takes bells away
    printed = capsys.readouterr().out
    whole = SEEN.replace("\\x07", "")
    assert all(seen in printed for seen in ("[red]head[/red]", "[b]title\\x9b1m", "[link=http://x]cell", whole))
    assert not any(each in printed for each in "\x1b\x07\x9b\u202e")


def test_a_line_of_the_log_is_text() -> None:
    record = logging.LogRecord("name", logging.WARNING, "", 0, "%s", (HOSTILE,), None)
    assert TextLines("%(message)s").format(record) == SEEN


def test_a_hostile_name_in_a_store_is_shown_by_every_command_that_looks(
    home: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(values["tasks"][0])
    (folder / "task.json").write_text(json.dumps({"name": HOSTILE, "kind": "classification"}), encoding="utf-8")
    sweep = home / "sweep.json"
    sweep.write_text(json.dumps(values), encoding="utf-8")
    plan = plan_sweep(values)
    store = Store(home / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    done = {"metric": "accuracy", "validation_score": 0.5, "test_score": 0.4, "engine": "e", "pack_size": 1.0}
    store.append([trial_record(trial, TrialStatus.COMPLETED, sweep="small", **done) for trial in plan.trials[:4]])
    for command in (["plan", str(sweep)], ["status", str(store.uri)], ["report", str(store.uri)]):
        assert main(command) == 0
        captured = capsys.readouterr()
        printed = captured.out + captured.err
        assert "evil" in printed
        assert not any(each in printed for each in "\x1b\x07\x9b\u202e")


def test_a_fault_that_quotes_what_was_given_is_text(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "no\x1b[2Jsuch"]) == 2
    assert "\x1b" not in capsys.readouterr().err
