"""A running sweep in a notebook."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from orchestrator.run import notebook
from orchestrator.run.notebook import NotebookProgress, is_notebook
from tests.factories import epoch_report, planned_trial, trial_config, trial_record
from trainables.outcome import OutcomeStatus


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a kernel was told to show, one entry a drawing."""
    shown: list[str] = []

    def display(what: Any, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(what._repr_html_())
        return SimpleNamespace(update=lambda again: shown.append(again._repr_html_()))

    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    of_display = ModuleType("IPython.display")
    monkeypatch.setattr(of_display, "display", display, raising=False)
    monkeypatch.setitem(sys.modules, "IPython.display", of_display)
    return shown


def test_it_is_a_notebook_where_a_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not is_notebook()
    for shell, expected in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)):
        ipython = ModuleType("IPython")
        monkeypatch.setattr(ipython, "get_ipython", lambda shell=shell: shell, raising=False)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert is_notebook() is expected


def test_lines_and_the_panel_are_drawn_anew(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "DRAW_EVERY_S", 0.0)
    trial = planned_trial("trial-0", trial_config(seed=0), task="<b>mood[red]")
    with NotebookProgress({}) as progress:
        progress.planned(2, done=0)
        progress.trial_started(trial)
        progress.epoch_ended(trial, epoch_report(2, validation_score=0.6))
        assert "epoch 2/3" in drawn[-1]
        progress.trial_ended(trial_record(trial, OutcomeStatus.COMPLETED, metric="accuracy", validation_score=0.7))
    assert "2 trials planned" in drawn[-1]
    assert "1/2 trials done" in drawn[-1]
    assert "&lt;b&gt;mood[red]" in drawn[-1]
    assert "<b>" not in drawn[-1]
    assert "1/2 trials done" in repr(progress)


def test_it_is_not_drawn_more_often_than_somebody_can_look(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "DRAW_EVERY_S", 3600.0)
    trial = planned_trial("trial-0", trial_config(seed=0), task="mood")
    with NotebookProgress({}) as progress:
        progress.planned(1, done=0)
        before = len(drawn)
        for epoch in range(1, 50):
            progress.epoch_ended(trial, epoch_report(epoch, validation_score=0.6))
        assert len(drawn) == before
    assert "epoch 49/3" in drawn[-1]
