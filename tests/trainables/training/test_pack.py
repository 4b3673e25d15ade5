"""Training: the paper's protocol step by step, and an error when it diverges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.factories import brief_config
from trainables import metrics
from trainables.backbones.loading import Backbone
from trainables.data.order import epoch_ends
from trainables.data.tokenized import TokenizedSplit
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


class Watched(torch.optim.AdamW):
    """AdamW that remembers its making and each of its steps."""

    made: Watched

    def __init__(self, groups: list[dict[str, Any]], **given: Any) -> None:
        super().__init__(groups, **given)
        self.rates: list[float] = []
        self.norms: list[float] = []
        Watched.made = self

    def step(self, closure: Any = None) -> Any:
        self.rates.append(self.param_groups[0]["lr"])
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(torch.cat(gradients).norm().item())
        assert all(group["lr"] == self.rates[-1] for group in self.param_groups)
        return super().step(closure)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Watched]:
    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    return lambda: Watched.made


class TestProtocol:
    def test_each_step_has_the_schedule_s_learning_rate(
        self, splits: MakeSplits, fit: Fit, watched: Callable[[], Watched]
    ) -> None:
        trial, _ = fit(splits(rows=72), brief_config(num_epochs=5, learning_rate=3e-3))
        rates = watched().rates
        assert len(rates) == 72 * 5 // 16 == trial.epochs[-1].step
        assert rates == [3e-3 * schedule(step, len(rates), 0.1) for step in range(len(rates))]

    @pytest.mark.parametrize("method", ["adapter", "full_finetuning"])
    def test_only_matrices_decay_and_apart_from_their_gradient(
        self, method: str, splits: MakeSplits, fit: Fit, backbone: Backbone
    ) -> None:
        """With decay alone differing, one step leaves a matrix smaller by rate * decay of where it started."""
        data = splits(rows=16)
        trials = [brief_config(method, num_epochs=1, warmup_ratio=0.0, weight_decay=decay) for decay in (0.0, 0.5)]
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

    def test_gradients_are_clipped_at_their_global_norm(
        self, splits: MakeSplits, fit: Fit, watched: Callable[[], Watched]
    ) -> None:
        data = splits()
        fit(data, brief_config(max_grad_norm=1e6))
        free = watched().norms
        fit(data, brief_config(max_grad_norm=0.01))
        assert min(free) > 0.02
        assert watched().norms == pytest.approx([0.01] * len(free), rel=1e-3)

    def test_every_epoch_is_evaluated_after_its_last_step(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits(rows=40)
        trial, _ = fit(data, brief_config(num_epochs=3))
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
        trial, _ = fit(splits(), brief_config())
        assert [epoch.train_loss for epoch in trial.epochs] == pytest.approx(
            [np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-6
        )

    def test_scores_are_those_of_the_last_epoch(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits()
        trial, model = fit(data, brief_config(num_epochs=3))
        assert dict(trial.epochs[-1].validation) == evaluate(model, data["validation"], metrics.get("accuracy"))

    def test_fewer_steps_than_epochs_invent_no_loss(self, splits: MakeSplits, fit: Fit) -> None:
        trial, _ = fit(splits(rows=10), brief_config(batch_size=32, num_epochs=3))
        assert [epoch.step for epoch in trial.epochs] == [1, 1, 1]
        assert len({epoch.train_loss for epoch in trial.epochs}) == 1
        assert trial.epochs[0].train_loss > 0

    def test_batches_are_the_trial_s_in_their_order(
        self, splits: MakeSplits, fit: Fit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        met: list[list[int]] = []
        original = module.to_device

        def watch(split: TokenizedSplit, rows: np.ndarray, device: torch.device) -> Any:
            met.append(rows.tolist())
            return original(split, rows, device)

        monkeypatch.setattr(module, "to_device", watch)
        trial, _ = fit(splits(), brief_config())
        assert met == [rows.tolist() for rows in trial.batches]

    def test_a_training_goes_on_with_dropout_after_an_evaluation(self, splits: MakeSplits, join: Join) -> None:
        modes: list[bool] = []
        pack = join(splits(), brief_config(num_epochs=2))
        pack.model.register_forward_pre_hook(lambda model, inputs: modes.append(model.training))
        for _ in pack.trials[0].batches:
            pack.step()
            if pack.trials[0].has_ended_epoch:
                pack.end_epoch(pack.trials[0], metrics.get("accuracy"))
        pack.evaluate(pack.trials[0], "test", metrics.get("accuracy"))
        assert modes == [True] * 4 + [False] + [True] * 4 + [False, False]


class TestDiverging:
    @pytest.mark.parametrize("learning_rate", [1e30, 1e38])
    def test_a_diverging_training_is_an_error(self, learning_rate: float, splits: MakeSplits, fit: Fit) -> None:
        with pytest.raises(TrainingDivergedError, match=r"the training loss became (nan|inf)"):
            fit(splits(), brief_config(learning_rate=learning_rate, warmup_ratio=0.0))

    def test_a_long_epoch_that_diverges_is_left_early(self, splits: MakeSplits, fit: Fit) -> None:
        with pytest.raises(TrainingDivergedError, match=r"by step 50 \(epoch 1\)"):
            fit(splits(rows=120), brief_config(learning_rate=1e30, batch_size=1, num_epochs=1))

    def test_a_last_step_that_diverges_earns_no_score(self, splits: MakeSplits, fit: Fit) -> None:
        with pytest.raises(TrainingDivergedError, match="the evaluation loss became"):
            fit(splits(rows=16), brief_config(learning_rate=1e30, num_epochs=1, warmup_ratio=0.0))
