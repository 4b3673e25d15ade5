"""The training step of a pack, read top to bottom.

Protocol of Houlsby et al. 2019, section 3.1, with the details its released code adds: AdamW, linear warm-up over the
first tenth of the steps and linear decay to zero, gradients clipped at a global norm, the last epoch evaluated. Every
trial of a pack has all of these to itself; what they share is the frozen backbone and the pass through it.

Batches come to the device in one of two ways. On a GPU the rows of the task and the order of every trial lie there, a
step gathers its batch itself, and steps of one shape are captured as a CUDA graph. Otherwise, on a CPU or where a
method needs what only the host has, each batch is laid out on the host.

Suffixes: K trials, B sequences a trial, S = K*B, P trained numbers of a trial.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from trainables.data.tokenized import TokenizedSplit
from trainables.device.hardware import raise_if_lost
from trainables.device.memory import is_out_of_memory, let_go_of, release_unused
from trainables.device.pace import Pace
from trainables.metrics import Metric, TaskKind
from trainables.nn.dropout import StepKeys
from trainables.nn.encoder import Encoder, Prefix
from trainables.nn.pieces import Pieces
from trainables.outcome import EpochReport
from trainables.predictions import predictions_from
from trainables.training.captured_step import CapturedSteps, CudaCapture
from trainables.training.device_data import Course, DeviceSplit, TrialCourse, on_device
from trainables.training.evaluation import PrefixOf, pick, predict_stacked, score, to_device
from trainables.training.fit import fit_head
from trainables.training.loss import TrainingDivergedError, example_losses, trial_losses, weight_matrix
from trainables.training.model import AdaptedModel, build_model
from trainables.training.optimizer import StepNumbers
from trainables.training.prefix_cache import PrefixCache
from trainables.training.running_trial import RunningTrial
from trainables.training.start import begin
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
        device = encoder.device
        is_gpu = device.type == "cuda"
        # Whether batches are gathered on the device, where the method lets them be.
        self.gathers_on_device = is_gpu
        # None where steps are launched kernel by kernel.
        captures = is_gpu and os.environ.get("ADAPTUNE_GRAPHS") != "0"
        self.captured = CapturedSteps(CudaCapture(device)) if captures else None
        self._pace = Pace(device)
        self._encoder = encoder
        self._data = data
        self._num_outputs = num_outputs
        self._prefixes = prefixes
        self._kind: TaskKind = kind
        self._metric = metric
        self._model: AdaptedModel | None = None
        self._weights: TrainedWeights | None = None
        self._courses: dict[RunningTrial, TrialCourse] = {}
        # Each with the version of the weights that it belongs to: other trials have another.
        self._course: tuple[int, Course] | None = None
        self._is_gathering: tuple[int, bool] | None = None  # what `_gathers` says
        self._class_weights: tuple[int, Tensor | None] | None = None  # (K, C)
        self._rows_there: DeviceSplit | None = None  # of train, on the device, where batches are gathered there
        self._sums: dict[RunningTrial, float] | None = None  # losses, where they were read since the last step

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
        """Let trials train with the pack from the next step on, initialised from their seeds or from their starts."""
        model = build_model(self._encoder, [trial.config for trial in newcomers], self._num_outputs, kind=self._kind)
        begin(model, [trial.job.start for trial in newcomers])
        if self._weights is None:
            self._model, self._weights = model, TrainedWeights(model)
        elif self.trials:
            self._weights.join(model)
        else:
            self._weights.replace_rows(self._weights.read(model))
        self.trials += newcomers
        self._sums = None

    def leave(self, leaving: Sequence[RunningTrial]) -> None:
        """Take trials out of the pack; the others go on as if those had never been there."""
        staying = [place for place, trial in enumerate(self.trials) if trial not in leaving]
        self.weights.keep(staying)
        self.trials = [self.trials[place] for place in staying]
        if not self.trials:
            self._forget_course()

    def suspend(self, leaving: Sequence[RunningTrial]) -> list[TrialState]:
        """Take trials out of the pack and their weights and moments off the device, until they `resume`."""
        states = [self.weights.state(self.trials.index(trial)) for trial in leaving]
        self.leave(leaving)
        return states

    def resume(self, returning: Sequence[RunningTrial], states: Sequence[TrialState]) -> None:
        """Let suspended trials go on where they stopped."""
        self.weights.resume(states)
        self.trials += returning
        self._sums = None

    def step(self) -> None:
        """One optimizer step of every trial; a trial that is fitted is at its optimum after it.

        Raises the device's out-of-memory error where even a single trial does not fit; trials whose turn had come
        before have then taken their step, and the others have not.
        """
        self._sums = None
        if self.trials[0].is_fitted:
            for trial in self.trials:
                self._fit(trial)
            return
        if self._gathers_now():
            course = self._current_course()
            rows_per_trial, longest = course.shape()
            for first, last in self._slices(rows_per_trial):
                self._train(first, last, lambda first, last: self._train_there(first, last, rows_per_trial, longest))
            self._pace.keep()
            return
        split = self._data["train"]
        batches = [trial.batches[trial.step] for trial in self.trials]
        # Instead of word pieces, each row of features has one.
        longest = max(len(rows) if self._has_features else int(split.lengths[rows].sum()) for rows in batches)
        for first, last in self._slices(longest):
            self._train(first, last, lambda first, last: self.train_slice(first, last, batches[first:last]))
        self._pace.keep()

    def _slices(self, tokens_per_trial: int) -> Iterator[tuple[int, int]]:
        """Ranges of trials that go through the encoder together, of nearly equal sizes."""
        fitting = max(1, self.tokens_per_slice // max(1, tokens_per_trial))
        bounds = np.linspace(0, len(self.trials), -(-len(self.trials) // fitting) + 1).round().astype(int).tolist()
        yield from itertools.pairwise(bounds)

    def _train(self, first: int, last: int, train: Callable[[int, int], None]) -> None:
        """One step of some trials; in halves where they do not fit into memory together."""
        statistics = self.weights.statistics[first:last].clone()
        try:
            return train(first, last)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise_if_lost(self.weights.device, error)  # such a device may say of anything that there is no memory
            let_go_of(error)  # or what is tried next would have to fit beside what did not
            # No trial of the slice has been updated yet, and its masks follow from the step: it takes the same again.
            self.weights.statistics[first:last] = statistics
            self.weights.forget_gradients(first, last)
            is_without_graphs = self.captured is not None and self.captured.make_room()
            release_unused()
            if last - first == 1 and not is_without_graphs:
                raise
        # Out here, where the error is gone: it is no cause of what comes of trying again.
        if is_without_graphs:  # their memory may be what was wanting
            return self._train(first, last, train)
        self.tokens_per_slice = max(1, self.tokens_per_slice // 2)
        middle = (first + last) // 2
        self._train(first, middle, train)
        self._train(middle, last, train)
        return None

    def train_slice(self, first: int, last: int, batches: Sequence[np.ndarray]) -> None:
        trials, device = self.trials[first:last], self.weights.device
        laid, pieces, labels_S = to_device(self._data["train"], np.concatenate(batches), len(trials), device)
        seeds, steps = [trial.dropout_seed for trial in trials], [trial.step for trial in trials]
        keys = StepKeys(seeds, steps, [trial.config.dropout for trial in trials], pieces)
        prefix_of = self._prefix_of("train", trials)
        prefix = None if prefix_of is None else prefix_of(laid)
        grads_KP = self._learn(first, last, pieces, labels_S, keys, trials, prefix)
        for trial in trials:
            trial.step += 1
        for module in self.model.followers:
            with self.weights.opened(self.model, first, last, grads_KP):
                module.after_step(trials[0].step, len(trials[0].batches))

    def _learn(
        self,
        first: int,
        last: int,
        pieces: Pieces,
        labels_S: Tensor,
        keys: StepKeys,
        numbers: Sequence[RunningTrial] | StepNumbers,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Forwards, backwards and the optimizer's step of some trials; gives the gradients they were moved by.

        On a GPU all of it may be captured: see `trainables.training.captured_step`.
        """
        self.model.drop_out(keys)
        self.weights.show(self.model, first, last)
        self.model.train()
        outputs = self.model(pieces, prefix)
        weights_KC = self._current_class_weights()
        weights_KC = None if weights_KC is None else weights_KC[first:last]
        losses_K = trial_losses(example_losses(outputs, labels_S), labels_S, weights_KC, last - first)
        penalty_K = self.model.penalty()
        # The loss of one trial knows no weight of another.
        (losses_K if penalty_K is None else losses_K + penalty_K).sum().backward()
        grads_KP = self.weights.take_gradients(first, last)
        self.weights.update(first, last, grads_KP, numbers)
        self.weights.loss_sums[first:last].add_(losses_K.detach())
        return grads_KP

    @property
    def has_graphs(self) -> bool:
        """Whether steps of the pack's trials are captured, or may yet be."""
        return self.captured is not None and not self.captured.is_broken and self._gathers_now()

    def _gathers_now(self) -> bool:
        """`_gathers`, asked once for as long as the trials are the same."""
        if self._is_gathering is None or self._is_gathering[0] != self.weights.version:
            self._is_gathering = self.weights.version, self._gathers()
        return self._is_gathering[1]

    def _gathers(self) -> bool:
        """Whether the device can gather its batches itself.

        A body of a method's own and a model in transformers' classes may ask the host about their batch, modules that
        follow a step look at its gradients, and states of frozen layers are kept on the host.
        """
        encoder = self.model.encoder
        if not self.gathers_on_device or encoder.body is not None or encoder.library is not None:
            return False
        if self.model.followers:
            return False
        return not self._has_features and not self._keeps_states(self.trials)

    def _current_class_weights(self) -> Tensor | None:
        """The class weights of all trials (K, C), brought to the device once for as long as the trials are the same."""
        if self._class_weights is None or self._class_weights[0] != self.weights.version:
            weights = [trial.class_weights for trial in self.trials]
            self._class_weights = self.weights.version, weight_matrix(weights, self.weights.device)
        return self._class_weights[1]

    def _current_course(self) -> Course:
        """What the trials' steps follow from, on the device; another one, and other graphs, after trials changed."""
        version, steps = self.weights.version, [trial.step for trial in self.trials]
        if self._course is None or self._course[0] != version or self._course[1].steps != steps:
            courses = self._courses
            self._forget_course()
            split, device = self._data["train"], self.weights.device
            self._courses = {
                trial: courses.get(trial) or TrialCourse.of(trial, split.lengths, device) for trial in self.trials
            }
            self._course = version, Course(self.trials, list(self._courses.values()), device)
            self._rows_there = on_device(split, device)  # held, since recorded steps read it where it lies
            self.weights.reserve_gradients()
        return self._course[1]

    def _forget_course(self) -> None:
        """Let go of what the steps of these trials follow from, and of the graphs that read it.

        Graphs are not kept for when as many trials come together again: they work on the very weights, moments,
        gradients and courses of these, which are other tensors for every set of trials.
        """
        self._course, self._courses, self._rows_there = None, {}, None
        if self.captured is not None:
            self.captured.forget()

    def _train_there(self, first: int, last: int, rows_per_trial: int, longest: int) -> None:
        """One step of some trials whose batches the device gathers; all there is of it may be captured."""
        step = functools.partial(self.step_there, first, last, rows_per_trial, longest)
        if self.captured is None:
            step()
        else:
            self.captured.take((first, last, rows_per_trial, longest), step)
        self._current_course().count(first, last)
        for trial in self.trials[first:last]:
            trial.step += 1

    def step_there(self, first: int, last: int, rows_per_trial: int, longest: int) -> None:
        """What the device does in such a step. Nothing here follows from anything but these four numbers."""
        course = self._current_course()
        self.weights.forget_gradients(first, last)  # of a step that could not be captured
        rows_S = course.rows_S(first, last)
        assert self._rows_there is not None  # which came with the course
        pieces, labels_S = self._rows_there.batch(rows_S, last - first, rows_per_trial, longest)
        keys = course.keys(first, last, pieces)
        self._learn(first, last, pieces, labels_S, keys, course.numbers(first, last))
        course.advance(first, last)
        # What was captured shall be held by its graph alone.
        self.model.drop_out(None)
        self.model.encoder.batch.pieces = None

    def _fit(self, trial: RunningTrial) -> None:
        """Put the head in place that the trial's method fits to the features of all training rows."""
        place = self.trials.index(trial)
        loss, trial.l2 = fit_head(
            self.show(trial, masters=True),
            trial.config,
            self._data,
            self._prefixes or PrefixCache(self._encoder),
            self._metric,
            trial.class_weights,
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
        sums = self._loss_sums()
        suspects = [self.trials[place] for place in due]
        found = [(trial, sums[trial]) for trial in suspects if not math.isfinite(sums[trial])]
        return [
            (trial, f"the training loss became {loss} by step {trial.step} (epoch {len(trial.epochs) + 1})")
            for trial, loss in found
        ]

    def _loss_sums(self) -> dict[RunningTrial, float]:
        """Of each trial over the steps of its epoch; read from the device once after a step."""
        if self._sums is None:
            self._sums = dict(zip(self.trials, self.weights.loss_sums.tolist(), strict=True))
        return self._sums

    def end_epochs(self, ended: Sequence[RunningTrial], metric: Metric) -> list[EpochReport | TrainingDivergedError]:
        """Evaluate trials on validation after an epoch, all in one pass, and keep their reports.

        One whose outputs are not finite has the error in its place.
        """
        sums = self._loss_sums()
        reports: list[EpochReport | TrainingDivergedError] = []
        for trial, scores in zip(ended, self.evaluate(ended, "validation", metric), strict=True):
            place = self.trials.index(trial)
            if isinstance(scores, TrainingDivergedError):
                reports.append(scores)
                continue
            # With fewer steps than epochs an epoch may hold no step, and the last loss stands.
            steps = trial.steps_in_epoch
            train_loss = sums[trial] / steps if steps else trial.epochs[-1].train_loss
            self.weights.loss_sums[place] = sums[trial] = 0.0
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
        if not self._keeps_states(trials):
            return None
        states = self._prefixes.states(self._data[split], view.num_frozen_layers)
        return None if states is None else lambda laid: states.batch(laid, self.weights.device)

    def _keeps_states(self, trials: Sequence[RunningTrial]) -> bool:
        """Whether hidden states above frozen layers are kept instead of computed, for these to train or for all."""
        if self._prefixes is None or any(trial.config.dropout != 0 for trial in trials):
            return False
        return self.model.encoder.num_frozen_layers > 0

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
