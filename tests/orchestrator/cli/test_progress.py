"""The live display: what it says of trials done, running and failed."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from orchestrator.cli.progress import TerminalProgress
from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord
from orchestrator.run.live import NO_ENGINE_S
from tests.factories import epoch_report, planned_trial, trial_config, trial_record
from trainables.outcome import OutcomeStatus


def planned(seed: int, size: int = 8) -> PlannedTrial:
    options = {"adapter_size": size, "init_std": 0.01}
    config = trial_config(method_options=options, seed=seed)
    return planned_trial(f"trial-{seed}", config, task="mood")


def ended(trial: PlannedTrial, status: OutcomeStatus, score: float | None = None) -> TrialRecord:
    error = "Traceback ...\nValueError: too hot" if status is OutcomeStatus.FAILED else None
    return trial_record(trial, status, metric="accuracy", validation_score=score, error=error)


@pytest.fixture
def shown() -> tuple[TerminalProgress, io.StringIO]:
    text = io.StringIO()
    return TerminalProgress(Console(file=text, width=120), {"adapter": ("adapter_size",)}), text


def panel(progress: TerminalProgress) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(progress.panel())
    return text.getvalue()


def test_the_panel_counts_trials_and_names_the_best_and_the_running(
    shown: tuple[TerminalProgress, io.StringIO],
) -> None:
    progress, log = shown
    progress.planned(10, done=4)
    for seed, score in ((0, 0.7), (1, 0.9), (2, 0.8)):
        progress.trial_started(planned(seed))
        progress.trial_ended(ended(planned(seed), OutcomeStatus.COMPLETED, score))
    progress.trial_ended(ended(planned(3), OutcomeStatus.FAILED))
    progress.trial_ended(ended(planned(4), OutcomeStatus.CANCELLED))
    running = planned(5, size=64)
    progress.trial_started(running)
    progress.epoch_ended(running, epoch_report(2, validation_score=0.6))
    text = panel(progress)
    # 4 finished earlier, 3 completed, 1 failed; a cancelled one is to be tried again.
    assert "8/10 trials done, 1 running, 1 failed" in text
    assert "0.900" in text
    assert "adapter adapter_size=8 seed 1" in text
    assert "adapter adapter_size=64 seed 5, epoch 2/3" in text
    assert "failed: mood adapter adapter_size=8 seed 3: ValueError: too hot" in log.getvalue()
    assert "4 of them finished earlier, 6 to train" in log.getvalue()


def test_the_panel_has_a_line_for_every_engine(shown: tuple[TerminalProgress, io.StringIO]) -> None:
    progress, _ = shown
    progress.planned(10, done=0)
    progress.engines_starting(2)
    assert "2 engines loading" in panel(progress)
    progress.engines_ready(["host/cpu", "host/cpu"])
    busy = EngineStatus(engine="host/cpu", task="trec", method="adapter", num_trials=4, examples_per_second=812.0)
    progress.engines_working([busy, busy, EngineStatus(engine="host/cpu")])
    text = panel(progress)
    assert text.count("engine host/cpu: adapter on trec, 4 trials, 812 examples/s") == 2
    assert "engine host/cpu: idle" in text
    assert "1,624 examples/s" in text
    assert "loading" not in text


def test_it_says_once_that_trials_wait_for_engines(
    shown: tuple[TerminalProgress, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, log = shown
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress.planned(10, done=0)
    progress.engines_starting(1)
    progress.engines_working([])
    assert "No engine" not in log.getvalue()  # they load
    progress.engines_ready(["host/cpu"])
    progress.engines_working([EngineStatus(engine="host/cpu")])
    assert "waiting" not in panel(progress)
    progress.engines_working([])
    now += NO_ENGINE_S - 1
    progress.engines_working([])
    assert "waiting" not in panel(progress)  # it may be back in a moment
    now += 2
    progress.engines_working([])
    progress.engines_working([])
    assert log.getvalue().count("No engine is left: trials wait until one is back.") == 1
    assert "waiting for engines" in panel(progress)
    progress.engines_working([EngineStatus(engine="host/cpu")])
    assert log.getvalue().count("An engine is back.") == 1
    assert "waiting" not in panel(progress)


def test_engines_that_loaded_for_long_are_not_missed_by_a_status_from_before_they_were_ready(
    shown: tuple[TerminalProgress, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, log = shown
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress.planned(10, done=0)
    progress.engines_starting(1)
    progress.engines_working([])
    now += NO_ENGINE_S + 1  # the driver was busy all the while
    progress.engines_ready(["host/cpu"])
    progress.engines_working([])
    progress.engines_working([EngineStatus(engine="host/cpu")])
    assert "No engine" not in log.getvalue()
    assert "An engine is back" not in log.getvalue()


def test_it_says_once_that_the_store_cannot_be_written_and_once_that_it_can(
    shown: tuple[TerminalProgress, io.StringIO],
) -> None:
    progress, log = shown
    progress.planned(10, done=0)
    for _ in range(3):
        progress.storage_failing("No space left on device", 2)
    assert log.getvalue().count("No space left on device. The sweep waits, holding 2 trained trials to record") == 1
    assert "waiting for the store" in panel(progress)
    for _ in range(2):
        progress.storage_back()
    assert log.getvalue().count("The store can be used again") == 1
    assert "waiting" not in panel(progress)
