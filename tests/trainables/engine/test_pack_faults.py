"""What happens to one trial of a pack leaves the records of the others as they would have been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fixtures import write_task_folder
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.engine.inbox import Inbox
from trainables.outcome import OutcomeStatus, TrialOutcome
from trainables.training import pack as pack_room
from trainables.training.pack import Pack
from trainables.training.running_trial import Job

PACK = 8
DIVERGING, STOPPED, PRUNED = 2, 4, 6

Configs = list[TrialConfig]


@pytest.fixture(scope="module")
def eight(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Configs:
    """Eight trials that share a pack: 3 epochs of 8 steps."""
    folder = str(write_task_folder(tmp_path_factory.mktemp("task"), rows=128))
    return [
        TrialConfig(
            task=folder,
            backbone=str(tiny_bert),
            method="adapter",
            method_options={"adapter_size": 4},
            learning_rate=[1e-2, 3e-3][seed % 2],
            num_epochs=3,
            batch_size=16,
            max_length=16,
            precision="fp32",
            seed=seed,
        )
        for seed in range(PACK)
    ]


@pytest.fixture
def configs(eight: Configs) -> Configs:
    """A list of the eight of the test's own."""
    return list(eight)


@pytest.fixture(scope="module")
def undisturbed(eight: Configs, tmp_path_factory: pytest.TempPathFactory) -> list[TrialOutcome]:
    return Engine(device="cpu", cache_dir=tmp_path_factory.mktemp("cache")).run_all(eight)


def run(configs: Configs, cache_dir: Path, **callbacks: dict[int, Any]) -> list[TrialOutcome]:
    """Train the pack with callbacks for some of its trials."""
    outcomes: dict[int, TrialOutcome] = {}
    inbox = Inbox()
    for index, config in enumerate(configs):
        own = {name: of[index] for name, of in callbacks.items() if index in of}
        inbox.put(Job(config=config, done=lambda outcome, index=index: outcomes.update({index: outcome}), **own))
    Engine(device="cpu", cache_dir=cache_dir).work(inbox)
    return [outcomes[index] for index in range(len(configs))]


def assert_same_records(outcomes: list[TrialOutcome], expected: list[TrialOutcome], indices: set[int]) -> None:
    for index in indices:
        ours, theirs = outcomes[index], expected[index]
        assert ours.status is theirs.status is OutcomeStatus.COMPLETED
        assert (ours.validation_score, ours.test_score, ours.best_epoch) == (
            theirs.validation_score,
            theirs.test_score,
            theirs.best_epoch,
        )
        losses = [[epoch.train_loss for epoch in each.epochs] for each in (ours, theirs)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-5)
        validation = [[epoch.validation["loss"] for epoch in each.epochs] for each in (ours, theirs)]
        np.testing.assert_allclose(validation[0], validation[1], rtol=0, atol=1e-5)


@pytest.mark.thorough
def test_eight_trials_train_as_one_pack_and_each_as_it_would_alone(
    configs: Configs, undisturbed: list[TrialOutcome], cache_dir: Path
) -> None:
    alone = [Engine(device="cpu", cache_dir=cache_dir).run(config) for config in configs]
    assert [outcome.pack_size for outcome in undisturbed] == [PACK] * PACK
    assert {outcome.pack_size for outcome in alone} == {1}
    assert_same_records(undisturbed, alone, set(range(PACK)))
    assert len({outcome.epochs[-1].train_loss for outcome in undisturbed}) == PACK


def test_a_nan_a_stop_within_an_epoch_a_prune_and_a_full_memory_disturb_no_other_trial(
    configs: Configs, undisturbed: list[TrialOutcome], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, full = 0, 0
    original = pack_room.example_losses

    def example_losses(outputs: Tensor, labels: Tensor) -> Tensor:
        """Memory is full in step 5, once the pack's dropout has been drawn, until half the trials go at a time."""
        nonlocal steps, full
        steps += 1
        if steps >= 5 and full < 2 and len(labels) > 2 * 16:
            full += 1
            raise torch.OutOfMemoryError("out of memory")
        return original(outputs, labels)

    monkeypatch.setattr(pack_room, "example_losses", example_losses)
    asked = 0

    def stop_in_step_12() -> bool:
        nonlocal asked
        asked += 1
        return asked > 11

    disturbed = list(configs)
    disturbed[DIVERGING] = TrialConfig.from_dict({**configs[DIVERGING].to_dict(), "learning_rate": 1e30})
    outcomes = run(
        disturbed, cache_dir, cancelled={STOPPED: stop_in_step_12}, report={PRUNED: lambda epoch: epoch.epoch < 2}
    )
    assert full == 2
    failed, stopped, pruned = (outcomes[index] for index in (DIVERGING, STOPPED, PRUNED))
    assert failed.status is OutcomeStatus.FAILED
    assert "TrainingDivergedError" in str(failed.error)
    assert (stopped.status, len(stopped.epochs), stopped.test_score) == (OutcomeStatus.CANCELLED, 1, None)
    assert (pruned.status, len(pruned.epochs), pruned.test_score) == (OutcomeStatus.PRUNED, 2, None)
    assert_same_records(outcomes, undisturbed, set(range(PACK)) - {DIVERGING, STOPPED, PRUNED})


@pytest.mark.thorough
def test_trials_that_do_not_fit_even_one_by_one_wait_for_the_others(
    configs: Configs, undisturbed: list[TrialOutcome], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Pack.train_slice
    largest: list[int] = []

    def train_slice(pack: Pack, first: int, last: int, batches: Any) -> None:
        """Memory holds the states of three trials, whatever passes through the encoder."""
        if len(pack.trials) > 3:
            raise torch.OutOfMemoryError("out of memory")
        largest.append(len(pack.trials))
        original(pack, first, last, batches)

    monkeypatch.setattr(Pack, "train_slice", train_slice)
    outcomes = run(configs, cache_dir)
    assert max(largest) <= 3
    assert_same_records(outcomes, undisturbed, set(range(PACK)))


def test_a_trial_that_does_not_fit_alone_fails_and_the_next_one_trains(
    configs: Configs, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Pack.train_slice

    def train_slice(pack: Pack, first: int, last: int, batches: Any) -> None:
        if any(trial.config.seed == 0 for trial in pack.trials[first:last]):
            raise torch.OutOfMemoryError("out of memory")
        original(pack, first, last, batches)

    monkeypatch.setattr(Pack, "train_slice", train_slice)
    outcomes = run(configs[:1], cache_dir) + run(configs[1:2], cache_dir)
    assert [outcome.status for outcome in outcomes] == [OutcomeStatus.FAILED, OutcomeStatus.COMPLETED]
    assert "OutOfMemoryError" in str(outcomes[0].error)


def test_trials_that_come_later_join_the_pack_in_training(configs: Configs, cache_dir: Path) -> None:
    outcomes: list[TrialOutcome] = []
    inbox = Inbox()

    def hand_in_another(_: object) -> bool:
        if len(configs) > 1:
            inbox.put(Job(config=configs.pop(), done=outcomes.append))
        return True

    inbox.put(Job(config=configs[0], done=outcomes.append, report=hand_in_another))
    Engine(device="cpu", cache_dir=cache_dir).work(inbox)
    assert len(outcomes) == 4
    assert {outcome.status for outcome in outcomes} == {OutcomeStatus.COMPLETED}
    assert outcomes[0].pack_size is not None
    assert 1 < outcomes[0].pack_size < 3


def test_trials_of_another_shape_open_a_pack_of_their_own(configs: Configs, cache_dir: Path) -> None:
    other = [
        TrialConfig.from_dict({**config.to_dict(), "method": method, "method_options": {}})
        for config, method in zip(configs, ["layernorm", "layernorm", "full_finetuning"], strict=False)
    ]
    outcomes = run([configs[0], *other, configs[1]], cache_dir)
    assert {outcome.status for outcome in outcomes} == {OutcomeStatus.COMPLETED}
    assert [outcome.pack_size for outcome in outcomes] == [2, 2, 2, 1, 2]
