"""A sweep of this folder meets no Ray and no MLflow where it asks for `scheduler`."""

from __future__ import annotations

import pytest

import orchestrator.scheduling.tuner
import orchestrator.tracking
from orchestrator.run import recording as recording_module
from tests.orchestrator.run.pretended import Listener, Scheduler


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    made = Scheduler()
    monkeypatch.setattr(orchestrator.scheduling.tuner, "run_trials", made.run)
    monkeypatch.setattr(orchestrator.tracking, "Tracker", Listener)
    monkeypatch.setattr(recording_module, "FIRST_WAIT_S", 0.01)
    Listener.made = []
    return made
