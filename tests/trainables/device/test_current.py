"""Whoever computes on a GPU works on it: an engine from its first pack on, a predictor while it answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.factories import brief_config
from tests.trainables.device.fake_gpus import FakeGpus
from trainables.device.current import work_on, working_on
from trainables.engine.engine import Engine
from trainables.estimate.benchmark import BenchmarkEngine
from trainables.inference import bank as bank_room
from trainables.inference.bank import AdapterBank
from trainables.outcome import OutcomeStatus
from trainables.training import evaluation

SECOND = torch.device("cuda", 1)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    return FakeGpus(monkeypatch, count=2)


def test_a_device_is_worked_on_from_now_on_or_for_a_while(gpus: FakeGpus) -> None:
    with working_on(SECOND):
        assert gpus.current == 1
    assert gpus.current == 0
    work_on(SECOND)
    assert gpus.current == 1


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_what_has_no_number_changes_nothing(name: str, gpus: FakeGpus) -> None:
    gpus.current = None
    work_on(torch.device(name))
    with working_on(torch.device(name)):
        assert gpus.current is None


def test_an_engine_works_on_its_gpu_before_it_loads_anything(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int | None] = []

    def prepare(self: Engine, config: object) -> Any:
        found.append(gpus.current)
        raise ValueError("that is enough")

    monkeypatch.setattr(Engine, "_prepare", prepare)
    monkeypatch.setattr(Engine, "_provenance", lambda self, config: {})
    monkeypatch.setattr("trainables.engine.engine.raise_if_lost", lambda device, error: None)
    engine = Engine(device="cuda:1")
    assert engine.run(brief_config()).status is OutcomeStatus.FAILED
    gpus.current = 0
    with pytest.raises(ValueError, match="that is enough"):
        engine.evaluate(brief_config(), "validation", None)  # type: ignore[arg-type]
    assert found == [1, 1]


def test_a_calibration_works_on_its_gpu(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {gpus.current}")
    found = BenchmarkEngine(device="cuda:1").measure_all([], seconds=1, wait=lambda: None)
    assert (found.device, gpus.current) == ("GPU 1", 1)


def test_an_evaluation_works_on_the_model_s_gpu_and_leaves_the_caller_its_own(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int | None] = []

    def predict_there(model: object, split: object) -> np.ndarray:
        found.append(gpus.current)
        return np.zeros(0)

    monkeypatch.setattr(evaluation, "predict_there", predict_there)
    weight = SimpleNamespace(device=SECOND)
    model = SimpleNamespace(head=SimpleNamespace(weight=weight), encoder=SimpleNamespace(body=None))
    evaluation.predict_stacked(model, None)  # type: ignore[arg-type]
    assert (found, gpus.current) == ([1], 0)


def test_a_bank_does_so_too(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int | None] = []
    monkeypatch.setattr(bank_room, "MixedEncoder", lambda encoder: None)
    monkeypatch.setattr(AdapterBank, "_outputs", lambda self, encoded: found.append(gpus.current) or [])
    bank = AdapterBank(SimpleNamespace(encoder=SimpleNamespace(device=SECOND)))  # type: ignore[arg-type]
    assert bank.predict([]) == []
    assert (found, gpus.current) == ([1], 0)
