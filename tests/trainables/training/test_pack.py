"""Training: the paper's protocol step by step, and an error when it diverges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from trainables import metrics
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data.order import epoch_ends
from trainables.data.tokenized import TokenizedSplit
from trainables.outcome import EpochReport
from trainables.training import optimizer
from trainables.training import pack as module
from trainables.training.evaluation import evaluate
from trainables.training.loss import TrainingDivergedError
from trainables.training.model import AdaptedModel, build_model
from trainables.training.optimizer import schedule
from trainables.training.pack import Pack
from trainables.training.running_trial import RunningTrial

Splits = Mapping[str, TokenizedSplit]
MakeSplits = Callable[..., Splits]
Join = Callable[..., Pack]
Fit = Callable[..., tuple[RunningTrial, AdaptedModel]]


def config(method: str = "adapter", **values: Any) -> TrialConfig:
    small: dict[str, Any] = {"adapter": {"adapter_size": 4}}
    fixed = {"learning_rate": 1e-2, "batch_size": 16, "num_epochs": 2} | values
    return TrialConfig(task="any", backbone="any", method=method, method_options=small.get(method, {}), **fixed)


@dataclass
class Steps:
    """What the optimizer was given at each step of a trial, and what it made of the gradient."""

    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # after clipping


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    original = optimizer.adamw_

    def watch(values: torch.Tensor, grads: torch.Tensor, *moments: torch.Tensor, **given: Any) -> None:
        original(values, grads, *moments, **given)
        steps.rates += given["rates_K"].tolist()
        steps.norms += grads.norm(dim=1).tolist()

    monkeypatch.setattr(optimizer, "adamw_", watch)
    return steps


class TestProtocol:
    def test_each_step_has_the_schedule_s_learning_rate(self, splits: MakeSplits, fit: Fit, watched: Steps) -> None:
        trial, _ = fit(splits(rows=72), config(num_epochs=5, learning_rate=3e-3))
        rates = watched.rates
        assert len(rates) == 72 * 5 // 16 == trial.epochs[-1].step
        assert rates == [3e-3 * schedule(step, len(rates), 0.1) for step in range(len(rates))]

    @pytest.mark.parametrize("method", ["adapter", "full_finetuning"])
    def test_only_matrices_decay_and_apart_from_their_gradient(
        self, method: str, splits: MakeSplits, fit: Fit, backbone: Backbone
    ) -> None:
        """With decay alone differing, one step leaves a matrix smaller by rate * decay of where it started."""
        data = splits(rows=16)
        trials = [config(method, num_epochs=1, warmup_ratio=0.0, weight_decay=decay) for decay in (0.0, 0.5)]
        start = build_model(backbone.encoder, trials[:1], 2)
        plain, decayed = (dict(fit(data, trial)[1].named_parameters()) for trial in trials)
        matrices = 0
        for name, parameter in start.named_parameters():
            if not parameter.requires_grad or name.endswith("bias") or "layernorm" in name:
                assert torch.equal(plain[name], decayed[name]), name
            else:
                difference = plain[name] - decayed[name]
                torch.testing.assert_close(difference, 1e-2 * 0.5 * parameter, rtol=1e-3, atol=2e-7)
                matrices += 1
        assert matrices == (9 if method == "adapter" else 13)

    def test_gradients_are_clipped_at_their_global_norm(self, splits: MakeSplits, fit: Fit, watched: Steps) -> None:
        data = splits()
        fit(data, config(max_grad_norm=1e6))
        free = list(watched.norms)
        watched.norms.clear()
        fit(data, config(max_grad_norm=0.01))
        assert min(free) > 0.02
        assert watched.norms == pytest.approx([0.01] * len(free), rel=1e-3)

    def test_every_epoch_is_evaluated_after_its_last_step(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits(rows=40)
        trial, _ = fit(data, config(num_epochs=3))
        assert [epoch.epoch for epoch in trial.epochs] == [1, 2, 3]
        assert [epoch.step for epoch in trial.epochs] == epoch_ends(40, batch_size=16, num_epochs=3)
        for epoch in trial.epochs:
            assert epoch.validation.keys() == {"accuracy", "loss"}
            assert epoch.validation_score == epoch.validation["accuracy"]
            assert epoch.duration_s > 0

    def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(
        self, splits: MakeSplits, fit: Fit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses: list[float] = []
        original = module.example_losses

        def watch(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            found = original(outputs, labels)
            losses.append(found.mean().item())
            return found

        monkeypatch.setattr(module, "example_losses", watch)
        trial, _ = fit(splits(), config())
        assert [epoch.train_loss for epoch in trial.epochs] == pytest.approx(
            [np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-6
        )

    def test_scores_are_those_of_the_last_epoch(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits()
        trial, model = fit(data, config(num_epochs=3))
        assert dict(trial.epochs[-1].validation) == evaluate(model, data["validation"], metrics.get("accuracy"))

    def test_fewer_steps_than_epochs_invent_no_loss(self, splits: MakeSplits, fit: Fit) -> None:
        trial, _ = fit(splits(rows=10), config(batch_size=32, num_epochs=3))
        assert [epoch.step for epoch in trial.epochs] == [1, 1, 1]
        assert len({epoch.train_loss for epoch in trial.epochs}) == 1
        assert trial.epochs[0].train_loss > 0

    def test_batches_are_the_trial_s_in_their_order(
        self, splits: MakeSplits, fit: Fit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        met: list[list[int]] = []
        original = module.to_device

        def watch(split: TokenizedSplit, rows: np.ndarray, num_trials: int, device: torch.device) -> Any:
            met.append(rows.tolist())
            return original(split, rows, num_trials, device)

        monkeypatch.setattr(module, "to_device", watch)
        trial, _ = fit(splits(), config())
        assert met == [rows.tolist() for rows in trial.batches]

    def test_a_training_goes_on_with_dropout_after_an_evaluation(self, splits: MakeSplits, join: Join) -> None:
        modes: list[bool] = []
        pack = join(splits(), config(num_epochs=2))
        pack.model.register_forward_pre_hook(lambda model, inputs: modes.append(model.training))
        for _ in pack.trials[0].batches:
            pack.step()
            if pack.trials[0].has_ended_epoch:
                pack.end_epochs(pack.trials, metrics.get("accuracy"))
        pack.evaluate(pack.trials, "test", metrics.get("accuracy"))
        assert modes == [True] * 4 + [False] + [True] * 4 + [False, False]


class TestDiverging:
    @pytest.mark.parametrize("learning_rate", [1e30, 1e38])
    def test_a_diverging_training_is_an_error(self, learning_rate: float, splits: MakeSplits, fit: Fit) -> None:
        with pytest.raises(TrainingDivergedError, match=r"the training loss became (nan|inf)"):
            fit(splits(), config(learning_rate=learning_rate, warmup_ratio=0.0))

    def test_a_long_epoch_that_diverges_is_left_early(self, splits: MakeSplits, fit: Fit) -> None:
        with pytest.raises(TrainingDivergedError, match=r"by step 50 \(epoch 1\)"):
            fit(splits(rows=120), config(learning_rate=1e30, batch_size=1, num_epochs=1))

    def test_a_last_step_that_diverges_earns_no_score(self, splits: MakeSplits, fit: Fit) -> None:
        with pytest.raises(TrainingDivergedError, match="the evaluation loss became"):
            fit(splits(rows=16), config(learning_rate=1e30, num_epochs=1, warmup_ratio=0.0))

    def test_one_that_diverges_is_named_and_the_others_are_undisturbed(self, splits: MakeSplits, join: Join) -> None:
        data = splits()
        mates = [config(seed=seed) for seed in range(2)]
        pack, undisturbed = (
            join(data, mates[0], config(learning_rate=1e38, warmup_ratio=0.0), mates[1]),
            join(data, *mates),
        )
        broken = pack.trials[1]
        for _ in range(4):
            pack.step()
            undisturbed.step()
        ((found, reason),) = pack.diverged()
        assert found is broken
        assert reason.startswith("the training loss became ")
        assert reason.endswith("by step 4 (epoch 1)")
        metric = metrics.get("accuracy")
        reports = pack.end_epochs(pack.trials, metric)
        assert isinstance(reports[1], TrainingDivergedError)
        assert [len(trial.epochs) for trial in pack.trials] == [1, 0, 1]
        pack.leave([broken])
        for _ in range(4):
            pack.step()
            undisturbed.step()
        assert pack.diverged() == []
        torch.testing.assert_close(pack.weights.rows, undisturbed.weights.rows, rtol=0, atol=1e-6)

    def test_losses_are_looked_at_where_an_epoch_ends(self, splits: MakeSplits, join: Join) -> None:
        pack = join(splits(), config(learning_rate=1e38, warmup_ratio=0.0))
        found = []
        for _ in range(4):
            pack.step()
            found.append(len(pack.diverged()))
        assert found == [0, 0, 0, 1]


class TestTogether:
    """Epochs of several trials end, and are evaluated, at once."""

    @pytest.mark.parametrize("together", [1, 2, 4])
    def test_scores_are_those_of_each_alone(
        self, together: int, splits: MakeSplits, join: Join, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(module.EVALUATED_TOGETHER, "cpu", together)
        data, metric = splits(), metrics.get("accuracy")
        pack = join(data, *(config(seed=seed) for seed in range(5)))
        for _ in range(3):
            pack.step()
        chosen = [pack.trials[place] for place in (4, 0, 2)]
        found = pack.evaluate(chosen, "validation", metric)
        for trial, scores in zip(chosen, found, strict=True):
            alone = evaluate(pack.show(trial), data["validation"], metric)
            assert scores == pytest.approx(alone, abs=1e-6)
        assert len({scores["loss"] for scores in found if isinstance(scores, dict)}) == 3

    def test_trials_end_their_epochs_where_each_has_them(self, splits: MakeSplits, join: Join) -> None:
        data, metric = splits(), metrics.get("accuracy")
        configs = [config(seed=0, num_epochs=1), config(seed=1, num_epochs=3), config(seed=2, num_epochs=2)]
        pack = join(data, *configs)
        alone = [join(data, each) for each in configs]
        while pack.trials:
            for single in alone:
                if single.trials[0].step < len(single.trials[0].batches):
                    single.step()
            pack.step()
            ended = [trial for trial in pack.trials if trial.has_ended_epoch]
            reports = pack.end_epochs(ended, metric)
            for trial, report in zip(ended, reports, strict=True):
                single = alone[trial.config.seed]
                (expected,) = single.end_epochs(single.trials, metric)
                assert isinstance(report, EpochReport)
                assert isinstance(expected, EpochReport)
                assert (report.epoch, report.step) == (expected.epoch, expected.step)
                assert report.train_loss == pytest.approx(expected.train_loss, abs=1e-6)
                assert report.validation == pytest.approx(expected.validation, abs=1e-6)
            pack.leave([trial for trial in ended if len(trial.epochs) == len(trial.epoch_ends)])
        assert [len(single.trials[0].epochs) for single in alone] == [1, 3, 2]
