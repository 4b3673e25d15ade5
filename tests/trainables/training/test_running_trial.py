"""A trial in training: its order of rows, and where its epochs end."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.config import TrialConfig
from trainables.outcome import EpochReport
from trainables.training.model import derive_seed
from trainables.training.running_trial import Job, RunningTrial

NUM_ROWS = 40


def running(**values: Any) -> RunningTrial:
    fixed = {"learning_rate": 1e-2, "batch_size": 8, "num_epochs": 2} | values
    config = TrialConfig(task="any", backbone="any", method="adapter", **fixed)
    return RunningTrial(Job(config=config, done=lambda outcome: None), NUM_ROWS)


def report(trial: RunningTrial) -> EpochReport:
    return EpochReport(
        epoch=len(trial.epochs) + 1, step=trial.step, train_loss=1, validation_score=1, validation={}, duration_s=1
    )


class TestEpochs:
    def test_one_ends_with_its_last_step(self) -> None:
        trial = running()
        ended = []
        for _ in trial.batches:
            trial.step += 1
            if trial.has_ended_epoch:
                ended.append(trial.step)
                assert trial.steps_in_epoch == 5
                trial.epochs.append(report(trial))
                assert trial.steps_in_epoch == 0
            assert not trial.has_ended_epoch
        assert ended == trial.epoch_ends == [5, 10]

    def test_with_fewer_steps_than_epochs_one_step_ends_several(self) -> None:
        trial = running(batch_size=80, num_epochs=6)  # 3 steps
        ended = []
        for _ in trial.batches:
            trial.step += 1
            while trial.has_ended_epoch:
                ended.append(trial.step)
                trial.epochs.append(report(trial))
        assert ended == trial.epoch_ends
        assert len(ended) == 6
        assert set(ended) == {1, 2, 3}

    def test_the_order_of_rows_follows_the_seed(self) -> None:
        first, other, again = (np.concatenate(running(seed=seed).batches).tolist() for seed in (3, 4, 3))
        assert first == again != other

    def test_dropout_follows_the_seed_and_is_not_the_order_of_rows(self) -> None:
        first, other, again = (running(seed=seed).dropout_seed for seed in (3, 4, 3))
        assert first == again != other
        assert running(seed=3, num_epochs=5).dropout_seed == first
        assert first == derive_seed(3, "dropout") != derive_seed(3, "data order")

    def test_what_was_not_measured_is_not_known(self) -> None:
        trial = running()
        assert (trial.examples_per_second, trial.pack_size) == (None, None)
        trial.step, trial.training_s, trial.steps_shared = 4, 2.0, 10
        assert (trial.examples_per_second, trial.pack_size) == (16.0, 2.5)
