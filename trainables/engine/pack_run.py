"""A pack from its first trial to its last: whom it takes up, whom it lets go, and what came of each."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainables.backbones.loading import Backbone
from trainables.data.tokenized import TokenizedSplit
from trainables.device.hardware import DeviceLostError, raise_if_lost
from trainables.device.memory import (
    PeakMemory,
    free_bytes,
    is_out_of_memory,
    let_go_of,
    release_unused,
    used_bytes,
    wait_for,
)
from trainables.engine.inbox import Inbox
from trainables.engine.pack_size import MemoryModel, PackSizer, batch_tokens, piece_bytes
from trainables.inference.saved_adapter import save, saved_files
from trainables.metrics import Metric
from trainables.outcome import OutcomeStatus, TrialOutcome, WeightFiles, unstarted
from trainables.predictions import SplitRows
from trainables.task import TaskInfo
from trainables.training.device_data import bucket_of_rows
from trainables.training.loss import TrainingDivergedError, class_weights
from trainables.training.model import count_parameters
from trainables.training.pack import Pack
from trainables.training.prefix_cache import PrefixCache
from trainables.training.running_trial import Job, RunningTrial
from trainables.training.weights import TrialState

logger = logging.getLogger(__name__)

# Where trials that end together are scored together on the further splits. On a CPU a larger batch gains nothing.
SCORED_TOGETHER = {"cpu": False, "cuda": True}


Scores = Mapping[str, float] | TrainingDivergedError


@dataclass(frozen=True, kw_only=True, eq=False)
class PackContext:
    """What every trial of a pack stands on."""

    backbone: Backbone
    task: TaskInfo
    metric: Metric
    data: Mapping[str, TokenizedSplit]
    prefixes: PrefixCache
    provenance: Mapping[str, str]
    rows_of: Callable[[str], SplitRows] | None = None  # which rows a split has; no predictions are kept without it


@dataclass(frozen=True, kw_only=True)
class PackStatus:
    """What an engine is doing."""

    task: str
    method: str
    num_trials: int  # that train together now
    limit: int  # that may
    examples_per_second: float | None  # of all its trials together, training alone, at the last step


def tell(job: Job, outcome: TrialOutcome) -> None:
    """Hand an outcome over; whoever cannot take it does no harm to other trials."""
    try:
        job.done(outcome)
    except Exception:
        logger.exception("nobody took the outcome of %s", job.config)


class PackRun:
    """Trains the trials of one pack until it is empty, taking up more from an inbox as it has room.

    Args:
        context: what they share.
        lead: the trial that opens the pack.
        inbox: where more may come from.
        accept: which of those can share the pack.
        memory_bytes: what the pack may use; None plans with what is free.
        sizer: of an earlier pack of the same kind, so that its judgement is kept.
    """

    def __init__(
        self,
        context: PackContext,
        lead: Job,
        inbox: Inbox,
        accept: Callable[[Job], bool],
        *,
        memory_bytes: int | None = None,
        sizer: PackSizer | None = None,
    ) -> None:
        self._context = context
        self._inbox = inbox
        self._accept = accept
        self._device = context.backbone.encoder.device
        task = context.task
        self._pack = Pack(
            context.backbone.encoder, context.data, task.num_labels, context.prefixes, task.kind, context.metric
        )
        self._suspended: list[tuple[RunningTrial, TrialState]] = []
        self._used_before = used_bytes(self._device)
        self._peak = PeakMemory(self._device)
        self._rate: float | None = None
        self._scores: dict[tuple[RunningTrial, str], Scores] = {}  # of trials that have just ended
        self._method, self._task = lead.config.method, context.task.name
        self.sizer = sizer
        self._admit([lead])
        if self.sizer is None and self._pack.trials:
            self.sizer = self._plan(lead, memory_bytes)

    @property
    def status(self) -> PackStatus:
        limit = self.sizer.limit if self.sizer else 1
        return PackStatus(
            task=self._task,
            method=self._method,
            num_trials=len(self._pack.trials),
            limit=limit,
            examples_per_second=self._rate,
        )

    def run(self) -> None:
        """Train until no trial is left.

        Raises `DeviceLostError` where the device is lost meanwhile; the trials of the pack have then not ended.
        """
        try:
            while self._pack.trials or self._suspended:
                if self.sizer is not None:
                    self._fill(self.sizer.limit - len(self._pack.trials))
                self._drop_cancelled()
                if self._pack.trials:
                    self._step()
                    self._settle()
        except DeviceLostError:
            raise
        except Exception:  # whoever handed a trial in hears of its end, even where the pack itself is what broke
            logger.exception("a pack broke with %d trials", len(self._pack.trials) + len(self._suspended))
            for trial in [*self._pack.trials, *(trial for trial, _ in self._suspended)]:
                tell(trial.job, self._unstarted())

    def _drop_cancelled(self) -> None:
        for trial in list(self._pack.trials):
            try:
                if trial.job.cancelled():
                    self._let_go([trial], OutcomeStatus.CANCELLED)
            except Exception:
                self._let_go([trial], OutcomeStatus.FAILED, traceback.format_exc())

    def _plan(self, lead: Job, memory_bytes: int | None) -> PackSizer:
        encoder, lengths = self._context.backbone.encoder, self._context.data["train"].lengths
        typical, most = batch_tokens(
            lead.config.batch_size,
            mean_length=float(lengths.mean()),
            length_std=float(lengths.std()),
            longest=int(lengths.max()),
        )
        if self._pack.gathers_on_device:
            typical, most = bucket_of_rows(typical), bucket_of_rows(most)
        memory = MemoryModel(
            bytes_per_trial=self._pack.weights.bytes_per_trial,
            bytes_per_token=piece_bytes(lead.config.method, encoder.shape, int(lengths.max()), encoder.compute_dtype),
            tokens_per_trial=most,
            tokens_per_slice=self._pack.tokens_per_slice,
            has_graphs=self._pack.has_graphs,
        )
        free = free_bytes(self._device) if memory_bytes is None else memory_bytes
        return PackSizer(memory, free, typical_tokens=typical)

    def _fill(self, room: int) -> None:
        """Take up trials for the room there is: first those that had to give way, then the oldest that wait."""
        if room > 0 and self._suspended:
            returning = self._suspended[:room]
            if not self._take_back(returning):
                return
            room -= len(returning)
        if room > 0:
            self._admit(self._inbox.take(room, self._accept))

    def _take_back(self, returning: list[tuple[RunningTrial, TrialState]]) -> bool:
        """Let trials that had to give way go on; False where they cannot, and wait on for as long as that may help."""
        count = len(returning)
        try:
            self._pack.resume(*zip(*returning, strict=True))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            let_go_of(error)
            release_unused()
            assert self.sizer is not None  # by whose limit there is room
            if self._pack.trials or count > 1:
                self.sizer.shrink(len(self._pack.trials) or count // 2)
                return False
            tell(returning[0][0].job, self._unstarted())
        self._suspended = self._suspended[count:]
        return True

    def _admit(self, jobs: list[Job]) -> None:
        context, train = self._context, self._context.data["train"]
        newcomers = []
        for job in jobs:
            try:
                weights = class_weights(job.config.class_weights, context.task, train.labels)
                newcomers.append(RunningTrial(job, len(train), context.rows_of, weights))
            except Exception:
                tell(job, self._unstarted())
        if not newcomers:
            return
        try:
            self._pack.join(newcomers)
            return
        except Exception as error:
            let_go_of(error)
            release_unused()
            if is_out_of_memory(error) and self._pack.trials and self.sizer is not None:
                self.sizer.shrink(len(self._pack.trials))
                for trial in newcomers:
                    self._inbox.put(trial.job)  # for when there is room
                return
            if len(newcomers) == 1:
                tell(newcomers[0].job, self._unstarted())
                return
        for trial in newcomers:  # one of them may be what broke it
            self._admit([trial.job])

    def _step(self) -> None:
        trials = list(self._pack.trials)
        started = time.perf_counter()
        try:
            self._pack.step()
        except Exception as error:
            self._recover(error)
            return
        # On a GPU a step has been asked for and not taken: what is judged waits for it, and so does an epoch that ends.
        # No other step does, or the device would stand still between steps for as long as a pack is not full.
        is_judged = self.sizer is not None and self.sizer.judges(len(trials))
        if is_judged or any(trial.has_ended_epoch for trial in trials):
            wait_for(self._device)
        seconds = time.perf_counter() - started
        for trial in trials:
            trial.training_s += seconds
            trial.steps_shared += len(trials)
        examples = len(trials) * trials[0].batch_size
        self._rate = examples / seconds
        if self.sizer is not None:
            self.sizer.observe(len(trials), seconds / examples)

    def _recover(self, error: Exception) -> None:
        """Go on after a step that broke: with half the trials where memory did not suffice, else with none of them."""
        trials = self._pack.trials
        let_go_of(error)
        if is_out_of_memory(error) and len(trials) > 1 and self.sizer is not None:
            self._settle()  # who took the step before memory ran out may have ended an epoch with it
            trials = self._pack.trials
            half = trials[len(trials) // 2 :]
            logger.warning("out of memory with %d trials in a pack: %d of them wait", len(trials), len(half))
            self.sizer.shrink(len(trials) - len(half))
            self._suspended += zip(half, self._pack.suspend(half), strict=True)
            release_unused()
        else:
            self._let_go(list(trials), OutcomeStatus.FAILED, "".join(traceback.format_exception(error)))

    def _settle(self) -> None:
        """After a step: look at losses, end epochs and trials."""
        for trial, reason in self._pack.diverged():
            try:
                raise TrainingDivergedError(reason)
            except TrainingDivergedError:
                logger.info("trial failed: %s: %s", trial.config, reason)
                self._let_go([trial], OutcomeStatus.FAILED, traceback.format_exc())
        has_ended_epoch = False
        # With fewer steps than epochs a step ends several.
        while ended := [trial for trial in self._pack.trials if trial.has_ended_epoch]:
            has_ended_epoch = True
            self._end_epochs(ended)
        if has_ended_epoch and self.sizer is not None:
            self._note_peak()
            peaks = [trial.peak_bytes for trial in self._pack.trials if trial.peak_bytes is not None]
            if peaks and self._used_before is not None:
                self.sizer.correct(len(self._pack.trials), max(peaks) - self._used_before)

    def _end_epochs(self, ended: list[RunningTrial]) -> None:
        """Evaluate and report the epochs that trials have ended, and let go of those that do not go on."""
        try:
            reports = self._pack.end_epochs(ended, self._context.metric)
        except Exception as error:
            let_go_of(error)
            if len(ended) > 1:  # one of them may be what broke it
                for trial in ended:
                    self._end_epochs([trial])
                return
            logger.info("trial failed: %s", ended[0].config, exc_info=True)
            self._let_go(ended, OutcomeStatus.FAILED, traceback.format_exc())
            return
        self._score_together(
            [
                trial
                for trial, report in zip(ended, reports, strict=True)
                if not isinstance(report, TrainingDivergedError) and len(trial.epochs) == len(trial.epoch_ends)
            ]
        )
        for trial, report in zip(ended, reports, strict=True):
            try:
                if isinstance(report, TrainingDivergedError):
                    raise report
                if trial.job.if_pruned is not None:
                    self._note_peak()
                    trial.job.if_pruned(self._outcome(trial, OutcomeStatus.PRUNED, None))
                goes_on = trial.job.report(report)
                if len(trial.epochs) == len(trial.epoch_ends):
                    self._let_go([trial], OutcomeStatus.COMPLETED)
                elif not goes_on:
                    self._let_go([trial], OutcomeStatus.PRUNED)
            except Exception:
                logger.info("trial failed: %s", trial.config, exc_info=True)
                self._let_go([trial], OutcomeStatus.FAILED, traceback.format_exc())

    def _let_go(self, trials: list[RunningTrial], status: OutcomeStatus, error: str | None = None) -> None:
        """Take trials out of the pack and tell what came of them."""
        if not trials:
            return
        if status is OutcomeStatus.FAILED:
            raise_if_lost(self._device, sys.exception())
        self._note_peak()
        outcomes = [self._outcome(trial, status, error) for trial in trials]
        self._pack.leave(trials)
        for trial, outcome in zip(trials, outcomes, strict=True):
            tell(trial.job, outcome)

    def _unstarted(self) -> TrialOutcome:
        """The outcome of a trial that fails by the error at hand before anything of it could be measured."""
        raise_if_lost(self._device, sys.exception())
        return unstarted(OutcomeStatus.FAILED, traceback.format_exc(), self._context.provenance)

    def _note_peak(self) -> None:
        if (peak := self._peak.read()) is not None:
            for trial in self._pack.trials:
                trial.peak_bytes = max(peak, trial.peak_bytes or 0)

    def _outcome(self, trial: RunningTrial, status: OutcomeStatus, error: str | None) -> TrialOutcome:
        context, metric = self._context, self._context.metric
        last = trial.epochs[-1] if trial.epochs else None
        scores: Mapping[str, Mapping[str, float]] = {"validation": last.validation if last else {}, "test": {}}
        weights: WeightFiles | None = None
        if status is OutcomeStatus.COMPLETED:
            scores = self._final_scores(trial)
            weights = self._save(trial, scores)
        counts = count_parameters(self._pack.show(trial))
        sign = 1 if metric.mode == "max" else -1
        # The first of equal peaks: training longer did not help.
        best = max(trial.epochs, key=lambda epoch: (sign * epoch.validation_score, -epoch.epoch), default=None)
        has_scores = last is not None and status is not OutcomeStatus.FAILED
        return TrialOutcome(
            status=status,
            started_at=trial.started_at,
            duration_s=time.perf_counter() - trial.clock,
            epochs=tuple(trial.epochs),
            metric=metric.name,
            validation_score=last.validation_score if last and has_scores else None,
            validation=scores["validation"] if has_scores else {},
            test_score=scores["test"].get(metric.name),
            test=scores["test"],
            best_epoch=best.epoch if best and has_scores else None,
            trained_params=counts.trained,
            trained_params_without_head=counts.trained_without_head,
            total_params=counts.total,
            examples_per_second=trial.examples_per_second,
            pack_size=trial.pack_size,
            peak_memory_bytes=trial.peak_bytes,
            error=error,
            provenance=context.provenance if trial.l2 is None else {**context.provenance, "l2": f"{trial.l2:g}"},
            predictions=trial.predictions if status is OutcomeStatus.COMPLETED else {},
            weights=weights,
        )

    @property
    def _further_splits(self) -> list[str]:
        return sorted(self._context.data.keys() - {"train", "validation"})

    def _score_together(self, trials: list[RunningTrial]) -> None:
        """Score trials that have ended on the further splits in one pass, where the device gains by it."""
        self._scores.clear()
        if len(trials) < 2 or not SCORED_TOGETHER[self._device.type]:
            return
        try:
            for split in self._further_splits:
                found = self._pack.evaluate(trials, split, self._context.metric)
                self._scores |= {(trial, split): scores for trial, scores in zip(trials, found, strict=True)}
        except Exception:  # each is scored by itself then, and fails by itself if it does
            logger.warning("trials could not be scored together", exc_info=True)
            self._scores.clear()

    def _final_scores(self, trial: RunningTrial) -> Mapping[str, Mapping[str, float]]:
        """What a completed trial scores on validation and test; on further splits as `mismatched_accuracy`."""
        scores = {"validation": dict(trial.epochs[-1].validation), "test": {}}
        for split in self._further_splits:
            beside, _, further = split.partition("_")
            found = self._scores.pop((trial, split), None)
            if found is None:
                (found,) = self._pack.evaluate([trial], split, self._context.metric)
            if isinstance(found, TrainingDivergedError):
                raise found
            for name, value in found.items():
                scores[beside].setdefault(f"{further}_{name}" if further else name, value)
        return scores

    def _save(self, trial: RunningTrial, scores: Mapping[str, Mapping[str, float]]) -> WeightFiles | None:
        """Write what a trial has trained where its job says so, and give it where that is to be kept."""
        job = trial.job
        if job.save_to is None and not job.keep_weights:
            return None
        named = {f"{split}/{name}": value for split, values in scores.items() for name, value in values.items()}
        fingerprint = str(self._context.backbone.info.fingerprint)
        model = self._pack.show(trial, masters=True)
        task = self._context.task
        if job.save_to is not None:
            save(job.save_to, model, trial.config, task, backbone_fingerprint=fingerprint, scores=named)
        if not job.keep_weights:
            return None
        facts = {"backbone_fingerprint": fingerprint, "started_at": trial.started_at}
        try:
            return saved_files(model, trial.config, task, scores=named, **facts)
        except Exception:  # such as a file that its options name and that is gone: it has been trained all the same
            logger.warning("the weights of a trial cannot be kept: %s", trial.config, exc_info=True)
            return None
