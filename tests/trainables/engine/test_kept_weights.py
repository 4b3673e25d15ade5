"""A completed trial brings what it has trained where asked: the files of a saved adapter, its own of a pack."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainables
from tests.factories import brief_config
from trainables.backbones.loading import Backbone
from trainables.config import Scalar, TrialConfig
from trainables.engine.engine import Engine
from trainables.engine.inbox import Inbox
from trainables.inference import saved_adapter
from trainables.inference.saved_names import CONFIG, WEIGHTS, write_files
from trainables.outcome import OutcomeStatus, TrialOutcome
from trainables.training.running_trial import Job


@pytest.fixture
def config(tiny_bert: Path, task_folder: Callable[..., Path]) -> Callable[..., TrialConfig]:
    task = str(task_folder())

    def make(method: str = "adapter", **values: Any) -> TrialConfig:
        fixed = {"num_epochs": 1, "max_length": 16, "precision": "fp32"}
        return brief_config(method, task=task, backbone=str(tiny_bert), **(fixed | values))

    return make


def files_of(outcome: TrialOutcome) -> dict[str, bytes]:
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    assert outcome.weights is not None
    return dict(outcome.weights())


def test_each_trial_of_a_pack_brings_its_own_as_save_would_write_it(
    config: Callable[..., TrialConfig], engine: Engine, tmp_path: Path
) -> None:
    outcomes: dict[int, TrialOutcome] = {}
    inbox = Inbox()
    for seed in range(2):
        done: Any = lambda outcome, seed=seed: outcomes.update({seed: outcome})  # noqa: E731
        inbox.put(Job(config=config(seed=seed), done=done, keep_weights=True, save_to=tmp_path / f"saved{seed}"))
    engine.work(inbox)
    assert max(outcome.pack_size or 0 for outcome in outcomes.values()) > 1
    rows = ["good w1", "bad w2 w3"]
    for seed, outcome in outcomes.items():
        files = files_of(outcome)
        assert list(files)[-1] == CONFIG
        saved = tmp_path / f"saved{seed}"
        assert files[WEIGHTS] == (saved / WEIGHTS).read_bytes()
        about = json.loads(files[CONFIG])
        assert about.pop("started_at") == outcome.started_at
        assert about == json.loads((saved / CONFIG).read_text())
        write_files(tmp_path / f"kept{seed}", files)
        kept, other = trainables.load(tmp_path / f"kept{seed}"), trainables.load(saved)
        np.testing.assert_array_equal(kept.logits(rows), other.logits(rows))
    assert files_of(outcomes[0])[WEIGHTS] != files_of(outcomes[1])[WEIGHTS]


@pytest.mark.parametrize("method", ["linear_probe", "no_bert", "full_finetuning"])
def test_methods_that_train_alone_bring_theirs_too(
    method: str, config: Callable[..., TrialConfig], engine: Engine, tmp_path: Path
) -> None:
    outcome = engine.run(config(method), keep_weights=True)
    write_files(tmp_path / "kept", files_of(outcome))
    assert trainables.load(tmp_path / "kept").predict(["good"])


def test_trials_that_do_not_complete_or_are_not_asked_bring_none(
    config: Callable[..., TrialConfig], engine: Engine
) -> None:
    longer = config(num_epochs=2)
    assert engine.run(longer).weights is None
    assert engine.run(longer, report=lambda epoch: False, keep_weights=True).weights is None
    assert engine.run(longer, cancelled=lambda: True, keep_weights=True).weights is None
    assert engine.run(config(learning_rate=1e30), keep_weights=True).weights is None


def test_files_that_options_name_come_along_unless_they_are_large(
    config: Callable[..., TrialConfig],
    engine: Engine,
    backbone: Backbone,
    small_options: Callable[..., dict[str, Scalar]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = shutil.copytree(str(small_options("adapter_fusion", backbone.encoder)["adapters"]), tmp_path / "stages")
    fusion = config("adapter_fusion", method_options={"adapters": str(stages)})
    files = files_of(engine.run(fusion, keep_weights=True))
    copies = {path.relative_to(stages).as_posix() for path in stages.rglob("*") if path.is_file()}
    assert len(copies) == 6
    named = {name.partition("/adapters/")[2] for name in files if name.startswith("references/adapters/")}
    assert {name.partition("/")[2] for name in named} == {name.partition("/")[2] for name in copies}
    monkeypatch.setattr(saved_adapter, "MOST_REFERENCES", 10)
    large = engine.run(fusion, keep_weights=True)
    assert (large.status, large.weights) == (OutcomeStatus.COMPLETED, None)
    shutil.rmtree(stages)  # the copies are all that is needed
    write_files(tmp_path / "kept", files)
    assert trainables.load(tmp_path / "kept").predict(["good"])
