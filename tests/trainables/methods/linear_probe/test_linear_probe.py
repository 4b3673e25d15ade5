"""The linear probe as a method: what it chooses, what its trials report, what does not matter to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainables
from trainables import tasks
from trainables.backbones.loading import STAND_IN_SHAPE
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.estimate.flops import TaskSize, trial_work
from trainables.faults import FaultsError
from trainables.methods import (
    LabelledFeatures,
    LinearHead,
    linear_probe,
    parse_options,
    unused_hyperparameters,
    used_alone,
)
from trainables.outcome import OutcomeStatus, TrialOutcome

MakeConfig = Callable[..., TrialConfig]


def drawn(num_classes: int | None, rows: int = 60, noise: float = 3.0) -> LabelledFeatures:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, 20))
    numbers = features[:, 0] + noise * rng.standard_normal(rows)
    labels = numbers if num_classes is None else np.digitize(numbers, [-1.0, 1.0])[:rows] % num_classes
    return LabelledFeatures(
        features=torch.from_numpy(features), labels=torch.from_numpy(labels), num_classes=num_classes
    )


def probe(config: MakeConfig, kind: str = "classification", **values: object) -> TrialConfig:
    return used_alone(config(kind, method="linear_probe", **({"method_options": {}} | values)))


def completed(engine: Engine, config: TrialConfig) -> TrialOutcome:
    outcome = engine.run(config)
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    return outcome


@pytest.mark.parametrize("num_classes", [None, 3])
class TestChoice:
    """How strong the penalty is."""

    def weights(self, train: LabelledFeatures, **options: float) -> torch.Tensor:
        return linear_probe.fit(train, linear_probe.Options(**options), lambda head: (0.0, 0.0)).weight

    def chosen(self, train: LabelledFeatures, judge: Callable[[int], tuple[float, float]]) -> tuple[int, int]:
        """The place of the chosen strength, and how many were judged."""
        judged: list[LinearHead] = []

        def of_head(head: LinearHead) -> tuple[float, float]:
            judged.append(head)
            return judge(len(judged) - 1)

        weight = linear_probe.fit(train, linear_probe.Options(), of_head).weight
        apart = [(weight - self.weights(train, l2=l2)).norm().item() for l2 in linear_probe.PENALTIES]
        assert min(apart) < 1e-3 * sorted(apart)[1]
        return apart.index(min(apart)), len(judged)

    def test_the_best_score_wins_and_the_search_ends_soon_after(self, num_classes: int | None) -> None:
        scores = [0.1, 0.3, 0.2, 0.5, 0.4, 0.4, *[0.9] * 20]
        assert self.chosen(drawn(num_classes), lambda place: (scores[place], 1.0)) == (3, 6)

    def test_a_loss_that_still_falls_keeps_it_going(self, num_classes: int | None) -> None:
        scores = [0.5, *[0.4] * 5, *[0.9] * 20]
        place, _ = self.chosen(drawn(num_classes), lambda place: (scores[place], -float(place)))
        assert place == len(linear_probe.PENALTIES) - 1  # of equal scores the one with the lower loss

    def test_of_equal_scores_and_losses_the_strongest_wins(self, num_classes: int | None) -> None:
        assert self.chosen(drawn(num_classes), lambda place: (0.5, 1.0)) == (0, 1 + linear_probe.PATIENCE)


def test_a_strength_out_of_reach_is_refused() -> None:
    for l2 in (0, -1.0, 1e-9, 1e5):
        with pytest.raises(FaultsError, match=r"linear_probe\.l2: must be in \[1e-8, 1e4\] or null, but got"):
            parse_options("linear_probe", {"l2": l2}, STAND_IN_SHAPE)
    assert parse_options("linear_probe", {"l2": 1}, STAND_IN_SHAPE).l2 == 1.0


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_trial_is_one_epoch_of_one_step_over_all_rows(kind: str, config: MakeConfig, engine: Engine) -> None:
    trial = probe(config, kind)
    outcome = completed(engine, trial)
    (epoch,) = outcome.epochs
    assert (epoch.epoch, epoch.step, outcome.best_epoch, outcome.pack_size) == (1, 1, 1, 1)
    assert outcome.trained_params_without_head == 0
    assert outcome.trained_params == 17 * (2 if kind == "classification" else 1)
    assert outcome.test_score is not None
    assert outcome.test_score > 0.6
    assert outcome.examples_per_second is not None
    features = completed(engine, config(kind, method="feature_based", method_options={}))
    assert epoch.validation["loss"] < features.epochs[-1].validation["loss"]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_record_names_the_strength_it_was_fitted_with(kind: str, config: MakeConfig, engine: Engine) -> None:
    chosen = float(completed(engine, probe(config, kind)).provenance["l2"])
    assert any(chosen == pytest.approx(l2, rel=1e-5) for l2 in linear_probe.PENALTIES)
    again = completed(engine, probe(config, kind, method_options={"l2": chosen}))
    assert again.validation_score == pytest.approx(completed(engine, probe(config, kind)).validation_score, abs=1e-4)
    assert completed(engine, probe(config, kind, method_options={"l2": 0.25})).provenance["l2"] == "0.25"


def test_every_seed_gives_the_same_scores_whatever_else_the_engine_trains(config: MakeConfig, engine: Engine) -> None:
    others = [config(seed=seed) for seed in range(2)]
    first, _, second, _, again = engine.run_all(
        [probe(config), others[0], probe(config, seed=1), others[1], probe(config)]
    )
    for outcome in (second, again):
        assert (outcome.validation, outcome.test) == (first.validation, first.test)
        assert outcome.epochs[0].train_loss == first.epochs[0].train_loss


def test_what_it_does_not_use_changes_nothing(config: MakeConfig, engine: Engine) -> None:
    odd = {"learning_rate": 9.0, "num_epochs": 2, "batch_size": 3, "weight_decay": 1.0, "dropout": 0.9}
    plain = completed(engine, probe(config))
    raw = completed(engine, config(method="linear_probe", method_options={}, **odd))
    assert raw.test == plain.test
    assert [epoch.validation for epoch in raw.epochs] == [plain.epochs[0].validation] * 2
    assert used_alone(config(method="linear_probe", method_options={}, **odd)) == probe(config)
    assert unused_hyperparameters("adapter") == ()
    adapter = config(num_epochs=7)
    assert used_alone(adapter) == adapter


def test_its_features_are_those_of_feature_based_computed_once(
    config: MakeConfig, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = probe(config)
    completed(engine, config(method="feature_based", method_options={}))
    (prefixes,) = engine._prefixes.values()
    kept = dict(prefixes._features)
    completed(engine, trial)
    assert prefixes._features == kept


def test_a_saved_probe_predicts_what_the_trial_scored(config: MakeConfig, engine: Engine, tmp_path: Path) -> None:
    trial = probe(config, method_options={"l2": 1e-2})
    outcome = engine.run(trial, save_to=tmp_path / "saved")
    card = " ".join((tmp_path / "saved" / "README.md").read_text().split())
    assert ": l2 0.01, pooling pooler, fitted at once, seed 0. 34 trained parameters" in card
    predictor = trainables.load(tmp_path / "saved")
    rows = tasks.load(trial.task).splits["test"].to_pylist()
    predicted = predictor.predict([row["text_a"] for row in rows])
    assert np.mean([label == row["label"] for label, row in zip(predicted, rows, strict=True)]) == outcome.test_score


def test_its_cost_is_known_beforehand(config: MakeConfig) -> None:
    trial = probe(config)
    size = TaskSize(train_rows=320, evaluation_rows=100, test_rows=50, mean_length=10.0)
    probed, trained = (
        trial_work(each, STAND_IN_SHAPE, size) for each in (trial, config(method="feature_based", method_options={}))
    )
    assert (probed.num_steps, probed.num_epochs) == (1, 1)
    assert (probed.once_flops, probed.once_key) == (trained.once_flops, trained.once_key)  # one cache of features
    assert probed.evaluation_flops == trained.evaluation_flops
    assert probed.flops > trained.flops  # it reads the rows more often than two epochs do
