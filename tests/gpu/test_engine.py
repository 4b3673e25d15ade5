"""On a GPU: every method trains there, to the scores it has on a CPU, however its steps are launched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.factories import brief_config
from tests.fixtures import MakeCheckpoint, MakeTask, SmallOptions
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.methods import method_names
from trainables.outcome import OutcomeStatus, TrialOutcome

pytestmark = pytest.mark.gpu


@pytest.fixture
def config(
    tiny_bert: Path, backbone: Backbone, task_folder: MakeTask, small_options: SmallOptions
) -> Callable[..., TrialConfig]:
    folder = task_folder("task", rows=128)

    def make(method: str, **values: object) -> TrialConfig:
        given = {"task": str(folder), "backbone": str(tiny_bert), "max_length": 16, "precision": "fp32"}
        options = small_options(method, backbone.encoder)
        return brief_config(method=method, method_options=options, **(given | values))

    return make


def losses(outcomes: list[TrialOutcome]) -> list[float]:
    assert all(outcome.status is OutcomeStatus.COMPLETED for outcome in outcomes), outcomes[0].error
    return [epoch.train_loss for outcome in outcomes for epoch in outcome.epochs]


@pytest.mark.parametrize("method", method_names())
def test_it_trains_there_as_on_a_cpu(method: str, config: Callable[..., TrialConfig], cache_dir: Path) -> None:
    # peft draws its masks from torch's generators, which differ from device to device; all others' follow from keys.
    dropout = 0.0 if method == "peft" else None
    trials = [config(method, seed=seed, num_epochs=2, dropout=dropout) for seed in (0, 1)]
    there = losses(Engine(device="cuda", cache_dir=cache_dir).run_all(trials))
    here = losses(Engine(device="cpu", cache_dir=cache_dir).run_all(trials))
    assert there == pytest.approx(here, rel=5e-4, abs=5e-4)


@pytest.mark.parametrize("method", ["adapter", "lora", "layernorm", "full_finetuning"])
def test_captured_steps_train_as_those_launched_one_by_one(
    method: str, config: Callable[..., TrialConfig], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [config(method, seed=seed, num_epochs=4, precision="bf16") for seed in (0, 1, 2)]
    captured = losses(Engine(device="cuda", cache_dir=cache_dir).run_all(trials))
    monkeypatch.setenv("ADAPTUNE_GRAPHS", "0")
    one_by_one = losses(Engine(device="cuda", cache_dir=cache_dir).run_all(trials))
    assert captured == pytest.approx(one_by_one, rel=1e-3, abs=1e-3)


def test_trials_of_different_lengths_join_and_leave(config: Callable[..., TrialConfig], cache_dir: Path) -> None:
    trials = [config("adapter", seed=seed, num_epochs=1 + seed % 4) for seed in range(8)]
    together = Engine(device="cuda", cache_dir=cache_dir).run_all(trials)
    alone = [Engine(device="cuda", cache_dir=cache_dir).run(trial) for trial in trials[:4]]
    assert losses(together[:4]) == pytest.approx(losses(alone), abs=1e-4)
    assert torch.cuda.memory_allocated() < 2**30


@pytest.mark.parametrize("method", ["adapter", "lora", "full_finetuning"])
@pytest.mark.parametrize("family", ["modernbert", "albert-groups"])
def test_layers_of_other_kinds_train_there_as_on_a_cpu(
    family: str, method: str, config: Callable[..., TrialConfig], checkpoint: MakeCheckpoint, cache_dir: Path
) -> None:
    trials = [config(method, backbone=str(checkpoint(family)), seed=seed, num_epochs=2, dropout=0.1) for seed in (0, 1)]
    there = losses(Engine(device="cuda", cache_dir=cache_dir).run_all(trials))
    here = losses(Engine(device="cpu", cache_dir=cache_dir).run_all(trials))
    assert there == pytest.approx(here, rel=5e-4, abs=5e-4)
