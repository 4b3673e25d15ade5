"""Training: the paper's protocol step by step, stopped when it diverges or is asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables import data as trainables_data
from trainables import metrics
from trainables.config import TrialConfig
from trainables.data import TokenizedSplit
from trainables.model import AdaptedModel
from trainables.outcome import EpochReport, OutcomeStatus
from trainables.train import Training, TrainingDivergedError, evaluate, predict, schedule, train

Splits = Mapping[str, TokenizedSplit]
MakeSplits = Callable[..., Splits]
Fit = Callable[..., tuple[Training, AdaptedModel]]


def config(method: str = "adapter", **values: Any) -> TrialConfig:
    small: dict[str, Any] = {"adapter": {"adapter_size": 4}}
    fixed = {"learning_rate": 1e-2, "batch_size": 16, "num_epochs": 2} | values
    return TrialConfig(task="any", backbone="any", method=method, method_options=small.get(method, {}), **fixed)


class TestSchedule:
    @settings(deadline=None)
    @given(num_steps=st.integers(1, 300), warmup_ratio=st.sampled_from([0.0, 0.06, 0.1, 0.5, 0.99]))
    def test_it_is_transformers_linear_schedule_with_warmup(self, num_steps: int, warmup_ratio: float) -> None:
        from transformers import get_linear_schedule_with_warmup

        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        reference = get_linear_schedule_with_warmup(optimizer, int(warmup_ratio * num_steps), num_steps)
        for step in range(num_steps):
            assert schedule(step, num_steps, warmup_ratio) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
            optimizer.step()
            reference.step()

    def test_an_epoch_is_counted_as_the_released_code_counts(self) -> None:
        assert trainables_data.num_steps(3668, batch_size=32, num_epochs=5) == 573  # MRPC in its README


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
        training, _ = fit(splits(rows=72), config(num_epochs=5, learning_rate=3e-3))
        rates = watched().rates
        assert len(rates) == 72 * 5 // 16 == training.epochs[-1].step
        assert rates == [3e-3 * schedule(step, len(rates), 0.1) for step in range(len(rates))]

    @pytest.mark.parametrize("method", ["adapter", "full_finetuning"])
    def test_only_matrices_decay(
        self, method: str, splits: MakeSplits, fit: Fit, watched: Callable[[], Watched]
    ) -> None:
        _, model = fit(splits(), config(method, weight_decay=0.05, learning_rate=1e-4))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        decay = {names[id(p)]: group["weight_decay"] for group in watched().param_groups for p in group["params"]}
        assert decay.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, value in decay.items():
            per_trial = model.get_parameter(name).squeeze(0)
            assert value == (0.05 if per_trial.dim() == 2 else 0.0), name

    def test_decay_is_decoupled_from_the_gradient(self, splits: MakeSplits, fit: Fit) -> None:
        """With decay alone differing, a matrix shrinks by the product of (1 - rate * decay); one step shows it."""
        data = splits(rows=16)
        plain, decayed = (
            fit(data, config(num_epochs=1, warmup_ratio=0.0, weight_decay=decay, dropout=0.0))[1].head
            for decay in (0.0, 0.5)
        )
        start = build_model_head(fit, data)
        torch.testing.assert_close(plain.weight - decayed.weight, 1e-2 * 0.5 * start, rtol=1e-3, atol=1e-8)
        assert torch.equal(plain.bias, decayed.bias)

    def test_gradients_are_clipped_at_their_global_norm(
        self, splits: MakeSplits, fit: Fit, watched: Callable[[], Watched]
    ) -> None:
        data = splits()
        fit(data, config(max_grad_norm=1e6))
        free = watched().norms
        fit(data, config(max_grad_norm=0.01))
        assert min(free) > 0.02
        assert watched().norms == pytest.approx([0.01] * len(free), rel=1e-3)

    def test_every_epoch_is_reported_after_its_last_step(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits(rows=40)
        reports: list[EpochReport] = []

        def keep(epoch: EpochReport) -> bool:
            reports.append(epoch)
            return True

        training, _ = fit(data, config(num_epochs=3), report=keep)
        assert training.epochs == tuple(reports)
        assert [epoch.epoch for epoch in reports] == [1, 2, 3]
        assert [epoch.step for epoch in reports] == trainables_data.epoch_ends(40, batch_size=16, num_epochs=3)
        for epoch in reports:
            assert epoch.validation.keys() == {"accuracy", "loss"}
            assert epoch.validation_score == epoch.validation["accuracy"]

    def test_scores_are_those_of_the_last_epoch(self, splits: MakeSplits, fit: Fit) -> None:
        data = splits()
        training, model = fit(data, config(num_epochs=3))
        assert dict(training.epochs[-1].validation) == evaluate(model, data["validation"], metrics.get("accuracy"))
        assert dict(training.test) == evaluate(model, data["test"], metrics.get("accuracy"))
        assert training.test_score == training.test["accuracy"]
        assert training.status is OutcomeStatus.COMPLETED
        assert training.examples_per_second is not None
        assert training.examples_per_second > 0

    def test_a_task_without_a_test_split_has_no_test_score(self, splits: MakeSplits, fit: Fit) -> None:
        training, _ = fit(splits(splits="train validation"), config())
        assert (training.test_score, training.test) == (None, {})
        assert training.status is OutcomeStatus.COMPLETED

    def test_fewer_steps_than_epochs_invent_no_loss(self, splits: MakeSplits, fit: Fit) -> None:
        training, _ = fit(splits(rows=10), config(batch_size=32, num_epochs=3))
        assert [epoch.step for epoch in training.epochs] == [1, 1, 1]
        assert len({epoch.train_loss for epoch in training.epochs}) == 1
        assert training.epochs[0].train_loss > 0


def build_model_head(fit: Fit, data: Splits) -> Tensor:
    """The head's weight before any step: after a training whose steps are too small to show."""
    _, model = fit(data, config(num_epochs=1, learning_rate=1e-30))
    return model.head.weight


class TestEnding:
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

    def test_a_report_that_answers_no_prunes(self, splits: MakeSplits, fit: Fit) -> None:
        training, _ = fit(splits(), config(num_epochs=4), report=lambda epoch: epoch.epoch < 2)
        assert training.status is OutcomeStatus.PRUNED
        assert [epoch.epoch for epoch in training.epochs] == [1, 2]
        assert (training.test_score, training.test) == (None, {})
        assert training.examples_per_second is not None

    def test_after_the_last_epoch_there_is_nothing_to_prune(self, splits: MakeSplits, fit: Fit) -> None:
        training, _ = fit(splits(), config(num_epochs=1), report=lambda epoch: False)
        assert training.status is OutcomeStatus.COMPLETED
        assert training.test_score is not None

    def test_a_cancelled_training_stops_at_the_next_step(
        self, splits: MakeSplits, fit: Fit, watched: Callable[[], Watched]
    ) -> None:
        steps_before = 6  # an epoch of 4 steps and 2 of the next
        training, _ = fit(splits(), config(num_epochs=3), cancelled=lambda: len(watched().rates) == steps_before)
        assert len(watched().rates) == steps_before
        assert training.status is OutcomeStatus.CANCELLED
        assert [epoch.step for epoch in training.epochs] == [4]
        assert training.test_score is None

    def test_the_speed_of_a_cancelled_training_is_that_of_its_whole_epochs(
        self, splits: MakeSplits, fit: Fit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter(float(tick) for tick in range(100))
        monkeypatch.setattr("time.perf_counter", lambda: next(clock))
        calls = iter(range(100))
        training, _ = fit(splits(), config(num_epochs=3), cancelled=lambda: next(calls) == 6)
        assert training.examples_per_second == 4 * 16 / 1.0
        nothing, _ = fit(splits(name="again"), config(), cancelled=lambda: True)
        assert (nothing.examples_per_second, nothing.epochs) == (None, ())


class TestPrediction:
    def test_it_is_in_the_order_of_the_split(self, splits: MakeSplits, fit: Fit) -> None:
        split = splits()["validation"]
        _, model = fit({"train": split, "validation": split}, config())
        together, labels = predict(model, split)
        assert (together.dtype, together.shape) == (np.float32, (32, 2))
        assert labels.tolist() == split.labels.tolist()
        model.eval()
        for row in (0, 7, 31):
            here = slice(*split.offsets[row : row + 2])
            ids = torch.from_numpy(split.input_ids[here].astype(np.int64))[None]
            with torch.no_grad():
                alone = model(ids, torch.zeros_like(ids))
            np.testing.assert_allclose(together[row], alone[0].numpy(), atol=1e-5)

    def test_a_training_goes_on_with_dropout_after_an_evaluation(self, splits: MakeSplits, fit: Fit) -> None:
        modes: list[bool] = []
        data = splits()
        _, model = fit(data, config(num_epochs=1))
        model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
        train(model, data, config(num_epochs=2), metrics.get("accuracy"))
        assert modes == [True] * 4 + [False] + [True] * 4 + [False, False]
