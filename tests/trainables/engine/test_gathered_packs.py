"""Packs as a GPU trains them, on the CPU: batches gathered, steps captured, trials scored together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.trainables.training.tape import TapeCapture
from trainables.config import TrialConfig
from trainables.engine import pack_run
from trainables.engine.engine import Engine
from trainables.nn.kernels import native
from trainables.outcome import OutcomeStatus, TrialOutcome
from trainables.training.captured_step import CapturedSteps
from trainables.training.pack import Pack

MakeConfig = Callable[..., TrialConfig]
EPOCHS = (2, 2, 1)


def outcomes(engine: Engine, config: MakeConfig) -> list[TrialOutcome]:
    """Of three trials in one pack, of which the last ends first."""
    configs = [config(seed=seed, num_epochs=epochs, dropout=0.1 * seed) for seed, epochs in enumerate(EPOCHS)]
    found = engine.run_all(configs)
    assert [outcome.status for outcome in found] == [OutcomeStatus.COMPLETED] * 3, found[0].error
    assert [len(outcome.epochs) for outcome in found] == list(EPOCHS)
    return found


def assert_alike(found: list[TrialOutcome], expected: list[TrialOutcome]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.test_score, ours.validation_score) == (theirs.test_score, theirs.validation_score)
        assert ours.test == pytest.approx(theirs.test, abs=1e-5)
        assert [epoch.train_loss for epoch in ours.epochs] == pytest.approx(
            [epoch.train_loss for epoch in theirs.epochs], abs=1e-5
        )


def test_trials_whose_steps_are_captured_come_out_as_those_whose_steps_are_not(
    engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)  # the tape hears of torch's operations alone
    expected = outcomes(engine, config)
    captures: list[TapeCapture] = []

    def as_on_a_gpu(*args: Any) -> Pack:
        pack = Pack(*args)
        captures.append(TapeCapture())
        pack.gathers_on_device, pack.captured = True, CapturedSteps(captures[-1])
        return pack

    monkeypatch.setattr(pack_run, "Pack", as_on_a_gpu)
    monkeypatch.setitem(pack_run.SCORED_TOGETHER, "cpu", True)
    assert_alike(outcomes(engine, config), expected)
    (capture,) = captures
    assert capture.log.count("replay") > 4
    assert capture.log[-1] == "release"  # an empty pack holds no graph


def evaluated(monkeypatch: pytest.MonkeyPatch, *, breaks: bool = False) -> list[tuple[str, int]]:
    """Which splits are evaluated for how many trials; `breaks` where test is for several."""
    calls: list[tuple[str, int]] = []
    original = Pack.evaluate

    def evaluate(self: Pack, trials: Any, split: str, metric: Any) -> Any:
        calls.append((split, len(trials)))
        if breaks and split == "test" and len(trials) > 1:
            raise RuntimeError("out of luck")
        return original(self, trials, split, metric)

    monkeypatch.setattr(Pack, "evaluate", evaluate)
    return calls


def test_trials_that_end_together_are_scored_together_where_the_device_gains_by_it(
    engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = evaluated(monkeypatch)
    expected = outcomes(engine, config)
    assert [number for split, number in calls if split == "test"] == [1, 1, 1]
    monkeypatch.setitem(pack_run.SCORED_TOGETHER, "cpu", True)
    calls.clear()
    assert_alike(outcomes(engine, config), expected)
    assert [number for split, number in calls if split == "test"] == [1, 2]


def test_trials_that_cannot_be_scored_together_are_scored_one_by_one(
    engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = outcomes(engine, config)
    monkeypatch.setitem(pack_run.SCORED_TOGETHER, "cpu", True)
    calls = evaluated(monkeypatch, breaks=True)
    with caplog.at_level(logging.WARNING):
        assert_alike(outcomes(engine, config), expected)
    assert [number for split, number in calls if split == "test"] == [1, 2, 1, 1]
    assert [record.message for record in caplog.records] == ["trials could not be scored together"]
