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
import torch

from trainables.data.order import WINDOW
from trainables.data.tokenized import TokenizedSplit
from trainables.device.memory import is_out_of_memory, release_unused
from trainables.metrics import Metric, TaskKind
from trainables.nn.dropout import DropoutStreams, connect
from trainables.nn.encoder import Encoder
from trainables.outcome import EpochReport
from trainables.training.evaluation import PrefixOf, evaluate, to_device
from trainables.training.loss import TrainingDivergedError, example_losses
from trainables.training.model import AdaptedModel, build_model
from trainables.training.prefix_cache import PrefixCache
from trainables.training.running_trial import RunningTrial
from trainables.training.weights import TrainedWeights

# Word pieces that pass through the encoder together. More trials than these hold are trained slice after slice: on a
# CPU a longer pass gains nothing and leaves the caches, and anywhere the memory of activations is bounded by it.
TOKENS_PER_SLICE = {"cpu": 2048, "cuda": 65_536}
# Steps between two looks at the losses, where a look costs no wait for the device.
FINITE_CHECK_STEPS = 50


class Pack:
    """Trials that train in the same step over one frozen encoder; they join and leave between steps.

    Args:
        encoder: the frozen backbone, of which the pack takes a view.
        data: the splits of the trials' one task.
        num_outputs: classes of the task, or 1.
        prefixes: where hidden states above frozen layers are kept; None keeps none.
        kind: of the task.
    """

    def __init__(
        self,
        encoder: Encoder,
        data: Mapping[str, TokenizedSplit],
        num_outputs: int,
        prefixes: PrefixCache | None = None,
        kind: TaskKind = "classification",
    ) -> None:
        self.trials: list[RunningTrial] = []
        self.tokens_per_slice = TOKENS_PER_SLICE[encoder.device.type]
        self._encoder = encoder
        self._data = data
        self._num_outputs = num_outputs
        self._prefixes = prefixes
        self._kind: TaskKind = kind
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

    @property
    def is_between_windows(self) -> bool:
        """Whether a trial that joins now meets batches of the lengths the pack meets."""
        return not self.trials or self.trials[0].steps_in_epoch % WINDOW == 0

    def join(self, newcomers: Sequence[RunningTrial]) -> None:
        """Let trials train with the pack from the next step on, initialised from their seeds."""
        model = build_model(self._encoder, [trial.config for trial in newcomers], self._num_outputs, kind=self._kind)
        if self._weights is None:
            self._model, self._weights = model, TrainedWeights(model)
            self._take(newcomers, self._weights.rows)
        else:
            self._take([*self.trials, *newcomers], torch.cat([self._weights.rows, self._weights.read(model)]))

    def leave(self, leaving: Sequence[RunningTrial]) -> None:
        """Take trials out of the pack; the others go on as if those had never been there."""
        staying = [k for k, trial in enumerate(self.trials) if trial not in leaving]
        self._take([self.trials[k] for k in staying], self.weights.rows[staying])

    def suspend(self, leaving: Sequence[RunningTrial]) -> None:
        """Take trials out of the pack and their weights and moments off the device, until they `resume`."""
        for trial in leaving:
            self.weights.attach(trial, trial.row.cpu())
        self.leave(leaving)

    def resume(self, returning: Sequence[RunningTrial]) -> None:
        """Let suspended trials go on where they stopped."""
        rows = torch.stack([trial.row for trial in returning]).to(self.weights.device)
        self._take([*self.trials, *returning], torch.cat([self.weights.rows, rows]))

    def _take(self, trials: Sequence[RunningTrial], rows: torch.Tensor) -> None:
        self.weights.replace_rows(rows)  # first: where memory does not suffice for it, the pack is as it was
        self.trials = list(trials)
        self.weights.attach_all(self.trials)

    def step(self) -> None:
        """One optimizer step of every trial.

        Raises the device's out-of-memory error where even a single trial does not fit; trials whose turn had come
        before have then taken their step, and the others have not.
        """
        split = self._data["train"]
        batches = [trial.batches[trial.step] for trial in self.trials]
        longest = max(int(split.lengths[rows].max()) for rows in batches)
        if self._has_features:  # instead of word pieces, each row has one
            longest = 1
        for first, last in self._slices(longest * len(batches[0])):
            self._train(first, last, batches)

    def _slices(self, tokens_per_trial: int) -> Iterator[tuple[int, int]]:
        """Ranges of trials that go through the encoder together, of nearly equal sizes."""
        fitting = max(1, self.tokens_per_slice // tokens_per_trial)
        bounds = np.linspace(0, len(self.trials), -(-len(self.trials) // fitting) + 1).round().astype(int).tolist()
        yield from itertools.pairwise(bounds)

    def _train(self, first: int, last: int, batches: Sequence[np.ndarray]) -> None:
        """One step of some trials; in halves where they do not fit into memory together."""
        trials = self.trials[first:last]
        states = [trial.dropout.get_state() for trial in trials]
        statistics = self.weights.statistics[first:last].clone()
        try:
            self.train_slice(first, last, batches[first:last])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # No trial of the slice has been updated yet: with its dropout set back, it takes the same step again.
            for trial, state in zip(trials, states, strict=True):
                trial.dropout.set_state(state)
            self.weights.statistics[first:last] = statistics
            self.weights.forget_gradients(first, last)
            release_unused()
            if len(trials) == 1:
                raise
            self.tokens_per_slice = max(1, self.tokens_per_slice // 2)
        else:
            return
        middle = (first + last) // 2
        self._train(first, middle, batches)
        self._train(middle, last, batches)

    def train_slice(self, first: int, last: int, batches: Sequence[np.ndarray]) -> None:
        trials, split, device = self.trials[first:last], self._data["train"], self.weights.device
        inputs, labels_S = to_device(split, np.concatenate(batches), device)
        streams = DropoutStreams([trial.dropout for trial in trials])
        own_lengths = [int(split.lengths[rows].max()) for rows in batches]
        streams.expect(len(labels_S), own_lengths if min(own_lengths) < inputs[0].shape[1] else None)
        connect(self.model, streams)
        self.weights.show(self.model, first, last)
        self.model.train()
        prefix = None
        if (prefix_of := self._prefix_of("train", trials)) is not None:
            prefix = prefix_of(np.concatenate(batches), inputs[0].shape[1])
        losses_K = example_losses(self.model(*inputs, prefix), labels_S).view(len(trials), -1).mean(dim=1)
        penalty_K = self.model.penalty()
        # The loss of one trial knows no weight of another.
        (losses_K if penalty_K is None else losses_K + penalty_K).sum().backward()
        grads_KP = self.weights.take_gradients(first, last)
        for trial, grads_P, loss in zip(trials, grads_KP, losses_K.detach(), strict=True):
            trial.update(grads_P)
            trial.loss_sum += loss
            trial.step += 1
        self.weights.refresh(first, last)
        for module in self.model.followers:
            with self.weights.opened(self.model, first, last, grads_KP):
                module.after_step(trials[0].step, len(trials[0].batches))

    def check_finite(self, trial: RunningTrial) -> None:
        """Raise `TrainingDivergedError` where a trial's loss is no longer finite.

        Reading a number waits for the device, so not at every step, and on a GPU only where an epoch ends.
        """
        is_due = trial.step % FINITE_CHECK_STEPS == 0 and self.weights.device.type == "cpu"
        if (is_due or trial.has_ended_epoch) and not math.isfinite(loss := trial.loss_sum.item()):
            epoch = len(trial.epochs) + 1
            raise TrainingDivergedError(f"the training loss became {loss} by step {trial.step} (epoch {epoch})")

    def end_epoch(self, trial: RunningTrial, metric: Metric) -> EpochReport:
        """Evaluate a trial on validation after an epoch, and keep the report.

        Raises `TrainingDivergedError` where its outputs are not finite.
        """
        # With fewer steps than epochs an epoch may hold no step, and the last loss stands.
        steps = trial.steps_in_epoch
        train_loss = trial.loss_sum.item() / steps if steps else trial.epochs[-1].train_loss
        trial.loss_sum.zero_()
        validation = self.evaluate(trial, "validation", metric)
        began, trial.epoch_clock = trial.epoch_clock, time.perf_counter()
        report = EpochReport(
            epoch=len(trial.epochs) + 1,
            step=trial.step,
            train_loss=train_loss,
            validation_score=validation[metric.name],
            validation=validation,
            duration_s=trial.epoch_clock - began,
        )
        trial.epochs.append(report)
        return report

    def evaluate(self, trial: RunningTrial, split: str, metric: Metric) -> dict[str, float]:
        """A trial's scores on a split. Raises `TrainingDivergedError` where its outputs are not finite."""
        return evaluate(self.show(trial), self._data[split], metric, self._prefix_of(split))

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
            return lambda rows, length: features.batch(rows, self.weights.device)
        if not view.num_frozen_layers or any(trial.config.dropout != 0 for trial in trials):
            return None
        states = self._prefixes.states(self._data[split], view.num_frozen_layers)
        return lambda rows, length: states.batch(rows, length, self.weights.device)

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
