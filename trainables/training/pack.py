"""The training step of a pack, read top to bottom.

Protocol of Houlsby et al. 2019, section 3.1, with the details its released code adds: AdamW, linear warm-up over the
first tenth of the steps and linear decay to zero, gradients clipped at a global norm, the last epoch evaluated. Every
trial of a pack has all of these to itself; what they share is the frozen backbone and the pass through it.

Suffixes: K trials, B sequences a trial, S = K*B, P trained numbers of a trial.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trainables.data.tokenized import TokenizedSplit
from trainables.device.memory import is_out_of_memory, release_unused
from trainables.metrics import Metric, TaskKind
from trainables.nn.dropout import StepKeys
from trainables.nn.encoder import Encoder
from trainables.outcome import EpochReport
from trainables.predictions import predictions_from
from trainables.training.evaluation import PrefixOf, pick, predict_stacked, score, to_device
from trainables.training.fit import fit_head
from trainables.training.loss import TrainingDivergedError, example_losses
from trainables.training.model import AdaptedModel, build_model
from trainables.training.prefix_cache import PrefixCache
from trainables.training.running_trial import RunningTrial
from trainables.training.weights import TrainedWeights, TrialState

# Word pieces that pass through the encoder together. More trials than these hold are trained slice after slice: on a
# CPU a longer pass gains nothing and leaves the caches, and anywhere the memory of activations is bounded by it.
TOKENS_PER_SLICE = {"cpu": 2048, "cuda": 65_536}
# Steps between two looks at the losses, where a look costs no wait for the device.
FINITE_CHECK_STEPS = 50
# Trials that are evaluated in one pass: more would make batches of few rows for each.
EVALUATED_TOGETHER = {"cpu": 4, "cuda": 32}


class Pack:
    """Trials that train in the same step over one frozen encoder; they join and leave between steps.

    Args:
        encoder: the frozen backbone, of which the pack takes a view.
        data: the splits of the trials' one task.
        num_outputs: classes of the task, or 1.
        prefixes: where hidden states above frozen layers are kept; None keeps none.
        kind: of the task.
        metric: of the task, by which a method that fits its head chooses among heads; None has it choose by the loss.
    """

    def __init__(
        self,
        encoder: Encoder,
        data: Mapping[str, TokenizedSplit],
        num_outputs: int,
        prefixes: PrefixCache | None = None,
        kind: TaskKind = "classification",
        metric: Metric | None = None,
    ) -> None:
        self.trials: list[RunningTrial] = []
        self.tokens_per_slice = TOKENS_PER_SLICE[encoder.device.type]
        self._encoder = encoder
        self._data = data
        self._num_outputs = num_outputs
        self._prefixes = prefixes
        self._kind: TaskKind = kind
        self._metric = metric
        self._model: AdaptedModel | None = None
        self._weights: TrainedWeights | None = None

    @property
    def model(self) -> AdaptedModel:
        """The pack's model; what it computes with is whichever trials are put before it."""
        assert self._model is not None, "no trial has joined"
        return self._model

    @property
    def weights(self) -> TrainedWeights:
        assert self._weights is not None, "no trial has joined"
        return self._weights

    def join(self, newcomers: Sequence[RunningTrial]) -> None:
        """Let trials train with the pack from the next step on, initialised from their seeds."""
        model = build_model(self._encoder, [trial.config for trial in newcomers], self._num_outputs, kind=self._kind)
        if self._weights is None:
            self._model, self._weights = model, TrainedWeights(model)
        elif self.trials:
            self._weights.join(model)
        else:
            self._weights.replace_rows(self._weights.read(model))
        self.trials += newcomers

    def leave(self, leaving: Sequence[RunningTrial]) -> None:
        """Take trials out of the pack; the others go on as if those had never been there."""
        staying = [place for place, trial in enumerate(self.trials) if trial not in leaving]
        self.weights.keep(staying)
        self.trials = [self.trials[place] for place in staying]

    def suspend(self, leaving: Sequence[RunningTrial]) -> list[TrialState]:
        """Take trials out of the pack and their weights and moments off the device, until they `resume`."""
        states = [self.weights.state(self.trials.index(trial)) for trial in leaving]
        self.leave(leaving)
        return states

    def resume(self, returning: Sequence[RunningTrial], states: Sequence[TrialState]) -> None:
        """Let suspended trials go on where they stopped."""
        self.weights.resume(states)
        self.trials += returning

    def step(self) -> None:
        """One optimizer step of every trial; a trial that is fitted is at its optimum after it.

        Raises the device's out-of-memory error where even a single trial does not fit; trials whose turn had come
        before have then taken their step, and the others have not.
        """
        if self.trials[0].is_fitted:
            for trial in self.trials:
                self._fit(trial)
            return
        split = self._data["train"]
        batches = [trial.batches[trial.step] for trial in self.trials]
        # Instead of word pieces, each row of features has one.
        longest = max(len(rows) if self._has_features else int(split.lengths[rows].sum()) for rows in batches)
        for first, last in self._slices(longest):
            self._train(first, last, batches)

    def _slices(self, tokens_per_trial: int) -> Iterator[tuple[int, int]]:
        """Ranges of trials that go through the encoder together, of nearly equal sizes."""
        fitting = max(1, self.tokens_per_slice // max(1, tokens_per_trial))
        bounds = np.linspace(0, len(self.trials), -(-len(self.trials) // fitting) + 1).round().astype(int).tolist()
        yield from itertools.pairwise(bounds)

    def _train(self, first: int, last: int, batches: Sequence[np.ndarray]) -> None:
        """One step of some trials; in halves where they do not fit into memory together."""
        statistics = self.weights.statistics[first:last].clone()
        try:
            self.train_slice(first, last, batches[first:last])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # No trial of the slice has been updated yet, and its masks follow from the step: it takes the same again.
            self.weights.statistics[first:last] = statistics
            self.weights.forget_gradients(first, last)
            release_unused()
            if last - first == 1:
                raise
            self.tokens_per_slice = max(1, self.tokens_per_slice // 2)
        else:
            return
        middle = (first + last) // 2
        self._train(first, middle, batches)
        self._train(middle, last, batches)

    def train_slice(self, first: int, last: int, batches: Sequence[np.ndarray]) -> None:
        trials, device = self.trials[first:last], self.weights.device
        laid, pieces, labels_S = to_device(self._data["train"], np.concatenate(batches), len(trials), device)
        seeds, steps = [trial.dropout_seed for trial in trials], [trial.step for trial in trials]
        self.model.drop_out(StepKeys(seeds, steps, [trial.config.dropout for trial in trials], pieces))
        self.weights.show(self.model, first, last)
        self.model.train()
        prefix_of = self._prefix_of("train", trials)
        outputs = self.model(pieces, None if prefix_of is None else prefix_of(laid))
        losses_K = example_losses(outputs, labels_S).view(len(trials), -1).mean(dim=1)
        penalty_K = self.model.penalty()
        # The loss of one trial knows no weight of another.
        (losses_K if penalty_K is None else losses_K + penalty_K).sum().backward()
        grads_KP = self.weights.take_gradients(first, last)
        self.weights.update(first, last, grads_KP, trials)
        self.weights.loss_sums[first:last] += losses_K.detach()
        for trial in trials:
            trial.step += 1
        for module in self.model.followers:
            with self.weights.opened(self.model, first, last, grads_KP):
                module.after_step(trials[0].step, len(trials[0].batches))

    def _fit(self, trial: RunningTrial) -> None:
        """Put the head in place that the trial's method fits to the features of all training rows."""
        place = self.trials.index(trial)
        loss, trial.l2 = fit_head(
            self.show(trial, masters=True),
            trial.config,
            self._data,
            self._prefixes or PrefixCache(self._encoder),
            self._metric,
        )
        self.weights.refresh(place, place + 1)
        self.weights.loss_sums[place] += loss
        trial.step += 1

    def diverged(self) -> list[tuple[RunningTrial, str]]:
        """The trials whose loss is no longer finite, and what is to be said of each.

        Reading numbers waits for the device, so not at every step, and on a GPU only where an epoch ends; then those
        of all trials are read at once.
        """
        is_on_host = self.weights.device.type == "cpu"
        due = [
            place
            for place, trial in enumerate(self.trials)
            if trial.has_ended_epoch or (is_on_host and trial.step % FINITE_CHECK_STEPS == 0)
        ]
        if not due:
            return []
        sums = self.weights.loss_sums.tolist()
        found = [(self.trials[place], sums[place]) for place in due if not math.isfinite(sums[place])]
        return [
            (trial, f"the training loss became {loss} by step {trial.step} (epoch {len(trial.epochs) + 1})")
            for trial, loss in found
        ]

    def end_epochs(self, ended: Sequence[RunningTrial], metric: Metric) -> list[EpochReport | TrainingDivergedError]:
        """Evaluate trials on validation after an epoch, all in one pass, and keep their reports.

        One whose outputs are not finite has the error in its place.
        """
        sums = self.weights.loss_sums.tolist()
        reports: list[EpochReport | TrainingDivergedError] = []
        for trial, scores in zip(ended, self.evaluate(ended, "validation", metric), strict=True):
            place = self.trials.index(trial)
            if isinstance(scores, TrainingDivergedError):
                reports.append(scores)
                continue
            # With fewer steps than epochs an epoch may hold no step, and the last loss stands.
            steps = trial.steps_in_epoch
            train_loss = sums[place] / steps if steps else trial.epochs[-1].train_loss
            self.weights.loss_sums[place] = 0.0
            began, trial.epoch_clock = trial.epoch_clock, time.perf_counter()
            report = EpochReport(
                epoch=len(trial.epochs) + 1,
                step=trial.step,
                train_loss=train_loss,
                validation_score=scores[metric.name],
                validation=scores,
                duration_s=trial.epoch_clock - began,
            )
            trial.epochs.append(report)
            reports.append(report)
        return reports

    def evaluate(
        self, trials: Sequence[RunningTrial], split: str, metric: Metric
    ) -> list[dict[str, float] | TrainingDivergedError]:
        """Scores of some trials on a split, in passes of as many as fit; the error of those that are not finite.

        What a trained model predicts stays with its trial, where the trial keeps it.
        """
        found: list[dict[str, float] | TrainingDivergedError] = []
        together = EVALUATED_TOGETHER[self.weights.device.type]
        places = [self.trials.index(trial) for trial in trials]
        for start in range(0, len(places), together):
            self.weights.show_places(self.model, places[start : start + together])
            stacked = predict_stacked(self.model, self._data[split], self._prefix_of(split))
            for trial, outputs in zip(trials[start : start + together], stacked, strict=True):
                try:
                    found.append(score(outputs, self._data[split], metric))
                except TrainingDivergedError as error:
                    found.append(error)
                    continue
                if trial.rows_of is not None and trial.keeps(split):
                    picked = pick(outputs, self._data[split], metric.kind)
                    trial.predictions[split] = predictions_from(outputs, picked, trial.rows_of(split), metric.kind)
        return found

    def _prefix_of(self, split: str, trials: Sequence[RunningTrial] = ()) -> PrefixOf | None:
        """Where the states above the frozen layers come from; None where there are none, or dropout alters them.

        Trials that train drop out below the layers they train too, as fine-tuning does, unless their dropout is 0.
        Of an encoder of which nothing is trained, what the head reads is kept; dropout is then the head's alone.
        """
        view = self.model.encoder
        if self._prefixes is None:
            return None
        if self._has_features:
            features = self._prefixes.features(self._data[split], view)
            return lambda laid: features.batch(laid, self.weights.device)
        if not view.num_frozen_layers or any(trial.config.dropout != 0 for trial in trials):
            return None
        states = self._prefixes.states(self._data[split], view.num_frozen_layers)
        return lambda laid: states.batch(laid, self.weights.device)

    @property
    def _has_features(self) -> bool:
        """Whether what the heads read is kept instead of computed."""
        return self._prefixes is not None and self.model.has_features and self.model.encoder.pooling != "tokens"

    def show(self, trial: RunningTrial, *, masters: bool = False) -> AdaptedModel:
        """The pack's model as this trial's alone, until the next call or step.

        With `masters` its tensors are the float32 ones that the optimizer moves, whatever the model computes in.
        """
        place = self.trials.index(trial)
        self.weights.show(self.model, place, place + 1, masters=masters)
        return self.model
