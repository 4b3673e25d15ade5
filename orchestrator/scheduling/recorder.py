"""What Ray Tune tells of its trials -> records. The trial reports, the driver records: `Recorder` is the one writer."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.tune.experiment import Trial

from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial
from orchestrator.record import TrialRecord, make_record
from orchestrator.scheduling.early_end import EarlyEnd
from orchestrator.scheduling.engine_actor import EngineLostError
from orchestrator.scheduling.pool import PoolStatus
from orchestrator.scheduling.trial import ENGINE, EPOCH_REPORT, IF_PRUNED, OUTCOME
from orchestrator.trial_source import TrialSource
from trainables import tasks
from trainables.faults import FaultsError
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome, WeightFiles, now
from trainables.predictions import Predictions

logger = logging.getLogger(__name__)

# The first engine is expected within so long; on a cluster that is joined nodes may take longer, of which is told.
ENGINE_START_TIMEOUT_S = 600.0
# Between two looks at the engines.
WATCH_S = 1.0
# Between two words on memory that ran out: Ray may kill many processes in a row.
MEMORY_NOTICE_S = 60.0
OUT_OF_MEMORY = (
    "A machine ran out of memory, so Ray killed processes of this sweep. They are started again; what they were "
    "training begins anew. Close what else needs memory there, or give trials a smaller batch_size or max_length."
)
# Records of trials that end within so long of each other, or so many, are handed on together.
GATHER_S, GATHER_MOST = 0.25, 64


class Observer(Protocol):
    """Who is told of a sweep's progress, on the driver, in the thread that runs the sweep."""

    is_interrupted: Callable[[], bool] | None  # set before the first event: whether the user asked for the end

    def notice(self, line: str) -> None:
        """One line that the user should read."""

    def engines_starting(self, count: int) -> None:
        """Engines load in processes of their own: a good moment for what else takes its time."""

    def engines_ready(self, names: Sequence[str]) -> None: ...

    def engines_working(self, engines: Sequence[EngineStatus]) -> None:
        """Told about once a second; an engine's numbers are at most a few seconds old."""

    def trial_started(self, trial: PlannedTrial) -> None: ...

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None: ...

    def trial_predicted(self, record: TrialRecord, predictions: Mapping[str, Predictions]) -> None:
        """What a completed trial predicts, by split, told before its record; only where that is to be kept."""

    def trial_trained(self, record: TrialRecord, weights: WeightFiles) -> None:
        """Where to get what a completed trial has trained, told before its record; only where that is to be kept."""

    def trials_ended(self, records: Sequence[TrialRecord]) -> None:
        """Records of trials that ended a moment ago; none is handed on twice."""


class _Start:
    """When a trial started: by the wall clock, and by one that nobody sets and that stops while a laptop sleeps."""

    def __init__(self) -> None:
        self.at = now()
        self._began = time.monotonic()

    @property
    def since_s(self) -> float:
        return time.monotonic() - self._began


class Recorder(tune.Callback):
    """Turns what Tune tells of its trials into records, exactly one a trial.

    A trial counts as started when it has an engine: Tune has more trials under way than engines take at once.
    `early_end` tells why the sweep is to end, once it is; `trial_failed` is called for each trial that has, and
    `engines_there` at each look with how many are on GPUs and how many on CPUs. `waits_for_nodes`: whether more may
    join, so that engines are waited for as long as it takes.
    `error` is what has to end the sweep, and is for whoever runs Tune to raise, since Tune would hand on its text
    alone. What it keeps of a trial it lets go with its record.
    """

    def __init__(
        self,
        sweep: str,
        source: TrialSource,
        observer: Observer,
        pool: Any,
        early_end: Callable[[], EarlyEnd | None],
        trial_failed: Callable[[], None],
        engines_there: Callable[[int, int], None],
        *,
        waits_for_nodes: bool = False,
    ) -> None:
        self._sweep = sweep
        self._trial_source = source
        self._planned: dict[str, PlannedTrial] = {}  # handed out and without a record
        self._observer = observer
        self._pool = pool
        self._early_end = early_end
        self._trial_failed = trial_failed
        self._engines_there = engines_there
        self._watch = _Watch(pool, observer.notice if waits_for_nodes else None)
        self._cancelling = False
        self._has_cut_short = False
        self._under_way: set[str] = set()  # whose processes Tune has started
        self._running: dict[str, _Start] = {}  # by trial_id
        self._epochs: dict[str, list[EpochReport]] = {}
        self._engines: dict[str, str] = {}
        self._if_pruned: dict[str, TrialOutcome] = {}  # by the last epoch that was heard of
        self._gathered: list[TrialRecord] = []
        self._gathered_since = 0.0
        self._lines_told = 0
        self._next_memory_notice = 0.0
        self.gpu_engines = self.cpu_engines = 0  # that were there at the last look
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for `Tuner.restore`; we resume from the store, and an observer may hold anything.
        return {}

    @property
    def has_ended_early(self) -> bool:
        """Whether the sweep was to end and every trial that was under way has ended."""
        return self._cancelling and not self._under_way

    @property
    def has_trials_left(self) -> bool:
        """Whether a trial that was handed out has no record, or that of one which was cancelled."""
        return self._has_cut_short or bool(self._planned)

    def under_way(self) -> list[PlannedTrial]:
        """The trials that were handed out and have no record. May be asked from any thread."""
        return list(self._planned.values())

    def handed_out(self, trial: PlannedTrial) -> None:
        """A trial is about to be named to Tune."""
        self._planned[trial.trial_id] = trial

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if not self._cancelling and (end := self._early_end()) is not None:
            self._cancelling = True
            self._pool.cancel_all.remote()
            self._tell(self._observer.notice, end.notice)
        self._tell(self._look_at_engines)
        if self._gathered and (
            len(self._gathered) >= GATHER_MOST or time.monotonic() - self._gathered_since >= GATHER_S
        ):
            self._hand_on()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._cancelling:
            self._under_way.add(trial.config["trial_id"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        planned = self._planned.get(trial.config["trial_id"])
        if planned is None:  # it has its record
            return
        # Tune keeps the last result, and shows this one to nobody after us.
        news = {key: result.pop(key) for key in (ENGINE, EPOCH_REPORT, IF_PRUNED, OUTCOME) if key in result}
        self._take_in(planned, news)

    def _take_in(self, planned: PlannedTrial, result: Mapping[str, Any]) -> None:
        if ENGINE in result:
            self._engines[planned.trial_id] = result[ENGINE]
            self._start(planned)
        if IF_PRUNED in result:
            self._if_pruned[planned.trial_id] = result[IF_PRUNED]
        if EPOCH_REPORT in result:
            # A trial that was started again after a fault counts its epochs from the first.
            earlier = [e for e in self._epochs.get(planned.trial_id, []) if e.epoch < result[EPOCH_REPORT].epoch]
            self._epochs[planned.trial_id] = [*earlier, result[EPOCH_REPORT]]
            self._tell(self._observer.epoch_ended, planned, result[EPOCH_REPORT])
        elif OUTCOME in result:
            outcome: TrialOutcome = result[OUTCOME]
            if outcome.epochs and outcome.status is OutcomeStatus.COMPLETED:
                self._tell(self._observer.epoch_ended, planned, outcome.epochs[-1])
            self._record(planned, outcome)
        elif planned.trial_id in self._engines:  # refused a second engine after it lost its first
            self._record(planned, self._cut_short(planned, OutcomeStatus.CANCELLED))
        else:  # the sweep was cancelled before it began
            self._has_cut_short = True
            self._let_go(planned.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        trial_id = trial.config["trial_id"]
        if trial_id in self._running:  # ended by Tune, not by itself
            planned = self._planned[trial_id]
            outcome = self._if_pruned.get(trial_id)
            self._record(planned, outcome or self._cut_short(planned, OutcomeStatus.PRUNED))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        planned = self._planned.get(trial.config["trial_id"])
        if planned is None:
            return
        error = trial.get_error()
        text = "".join(traceback.format_exception(error)) if error else "the trial's process died"
        self._record(planned, self._cut_short(planned, OutcomeStatus.FAILED, text))

    def process_died(self, error: RayError) -> None:
        """Tell the user, now and then, that memory ran out under the processes of trials; Tune starts them again."""
        logger.warning("a trial's process died: %s", error)
        if isinstance(error, OutOfMemoryError) and time.monotonic() >= self._next_memory_notice:
            self._next_memory_notice = time.monotonic() + MEMORY_NOTICE_S
            self._tell(self._observer.notice, OUT_OF_MEMORY)

    def finish(self) -> None:
        """Hand on what is left, and as cancelled what Tune ended without a word.

        After an error of the sweep's only what has ended is handed on, and nothing raised: that error is to be.
        """
        if self.error is None:
            for trial_id in list(self._running):
                self._record(self._planned[trial_id], self._cut_short(self._planned[trial_id], OutcomeStatus.CANCELLED))
            self._hand_on()
        elif self._gathered:
            try:
                self._observer.trials_ended(self._gathered)
            except Exception:  # as it may well be that error again
                logger.debug("the last records could not be handed on", exc_info=True)
                logger.warning("%d trained trials could not be recorded", len(self._gathered))

    def _look_at_engines(self) -> None:
        if names := self._watch.newly_ready():
            self._observer.engines_ready(names)
        if status := self._watch.latest():
            self.gpu_engines = status.gpu_engines
            self.cpu_engines = len(status.engines) - status.gpu_engines
            self._engines_there(self.gpu_engines, self.cpu_engines)
            for trial_id in status.lent:
                if not self._cancelling and trial_id in self._planned:
                    self._start(self._planned[trial_id])
            self._tell_of_engines(status.told)
            self._observer.engines_working(status.engines)

    def _tell_of_engines(self, lines: Sequence[str]) -> None:
        """Tell once what the pool says of engines. A pool that was started again counts from none."""
        for line in lines[self._lines_told :] if len(lines) >= self._lines_told else lines:
            self._observer.notice(line)
        self._lines_told = len(lines)

    def _start(self, trial: PlannedTrial) -> None:
        """Tell of a trial's start, once, even if its engine is heard of late."""
        if trial.trial_id not in self._running:
            self._running[trial.trial_id] = _Start()
            self._tell(self._observer.trial_started, trial)

    def _cut_short(self, trial: PlannedTrial, status: OutcomeStatus, error: str | None = None) -> TrialOutcome:
        """The outcome of a trial that could not report its own."""
        epochs = tuple(self._epochs.get(trial.trial_id, ()))
        start = self._running.get(trial.trial_id) or _Start()
        last = epochs[-1] if epochs and status is not OutcomeStatus.FAILED else None  # a failed trial has no scores
        return TrialOutcome(
            status=status,
            started_at=start.at,
            # Of a short one the start is heard late.
            duration_s=max(start.since_s, sum(epoch.duration_s for epoch in epochs)),
            epochs=epochs,
            metric=tasks.describe(trial.config.task).metric if epochs else None,
            validation_score=last.validation_score if last else None,
            validation=last.validation if last else {},
            trained_params=trial.trained_params,
            trained_params_without_head=trial.trained_params_without_head,
            total_params=trial.total_params,
            error=error,
        )

    def _record(self, trial: PlannedTrial, outcome: TrialOutcome) -> None:
        self._start(trial)
        record = make_record(self._sweep, trial, outcome, engine=self._engines.get(trial.trial_id))
        if outcome.status is OutcomeStatus.FAILED:
            self._trial_failed()
        self._has_cut_short |= outcome.status is OutcomeStatus.CANCELLED
        self._let_go(trial.trial_id)
        self._pool.release.remote(trial.trial_id)  # the trial's own process may have died with its engine on loan
        self._tell(self._trial_source.ended, record)
        if outcome.predictions:
            self._tell(self._observer.trial_predicted, record, outcome.predictions)
        if outcome.weights is not None:
            self._tell(self._observer.trial_trained, record, outcome.weights)
        if not self._gathered:
            self._gathered_since = time.monotonic()
        self._gathered.append(record)

    def _let_go(self, trial_id: str) -> None:
        self._under_way.discard(trial_id)
        for held in (self._planned, self._running, self._epochs, self._engines, self._if_pruned):
            held.pop(trial_id, None)

    def _hand_on(self) -> None:
        records, self._gathered = self._gathered, []
        if records:
            self._tell(self._observer.trials_ended, records)

    def _tell(self, event: Callable[..., None], *what: Any) -> None:
        try:
            event(*what)
        except Exception as error:
            self.error = error
            raise


class Stopper(tune.Stopper):
    """Ends Tune's loop once the running trials of a sweep that is to end early have ended."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._recorder.has_ended_early


class _Watch:
    """Asks the pool about its engines again and again, without ever waiting for the answer."""

    def __init__(self, pool: Any, tell: Callable[[str], None] | None = None) -> None:
        """`tell` is told where engines are waited for longer than they should take; None: that is an error."""
        self._pool = pool
        self._tell = tell
        self._names = pool.ready.remote()
        self._deadline = time.monotonic() + ENGINE_START_TIMEOUT_S
        self._status: Any = None
        self._next_look = 0.0

    def newly_ready(self) -> list[str] | None:
        """The engines' names, once, when all have loaded. Raises `FaultsError` where they died or take too long."""
        if self._names is None:
            return None
        if _is_there(self._names):
            try:
                names = _answer(self._names)
            except EngineLostError as error:
                fault = f"an engine must start, but {error.cause if isinstance(error, RayTaskError) else error}"
                raise FaultsError("engines", [f"{fault}; ADAPTUNE_LOG=debug shows all that Ray says"]) from error
            self._names = self._pool.ready.remote() if names is None else None
            return names
        if time.monotonic() > self._deadline:
            self._deadline = time.monotonic() + ENGINE_START_TIMEOUT_S
            free = [(name, ray.available_resources().get(name, 0)) for name in ("CPU", "GPU")]
            has = ", ".join(f"{amount:g} {name}" for name, amount in free if amount) or "neither CPU nor GPU"
            late = f"no engine has started for {ENGINE_START_TIMEOUT_S / 60:.0f} min; Ray has free: {has}"
            if self._tell is None:
                raise FaultsError("engines", [f"an engine must start, but {late}; end what else uses this machine"])
            self._tell(f"Waiting for nodes: {late}. Ctrl-C ends the sweep; the cluster's own log says why none comes.")
        return None

    def latest(self) -> PoolStatus | None:
        """What the pool answered to the last question, once."""
        if self._status is None:
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + WATCH_S
                self._status = self._pool.status.remote()
            return None
        if not _is_there(self._status):
            return None
        asked, self._status = self._status, None
        return _answer(asked)


def _answer(given: Any) -> Any | None:
    """The pool's answer; None where its process died meanwhile: Ray starts it again. Raises what the pool raised."""
    try:
        return ray.get(given)
    except RayTaskError:
        raise
    except RayError as error:
        logger.warning("the pool did not answer: %s", error)
        return None


def _is_there(answer: Any) -> bool:
    return bool(ray.wait([answer], timeout=0)[0])
