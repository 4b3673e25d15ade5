"""Planned trials -> Ray Tune -> records. The trial reports, the driver records: `Recorder` is the one writer."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.experiment import Trial

from orchestrator.plan import PlannedTrial
from orchestrator.record import TrialRecord, make_record
from orchestrator.scheduling.engines import engine_names, engine_pool, lay_out
from orchestrator.scheduling.trial import ENGINE, EPOCH_REPORT, OUTCOME, EngineTrial
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome

logger = logging.getLogger(__name__)

# A trial whose process or engine died is started again so often; a trial that failed by itself is not.
MAX_RESTARTS = 2
ENGINE_START_TIMEOUT_S = 600.0


class Observer(Protocol):
    """Who is told of a sweep's progress, on the driver, in the thread that runs the sweep."""

    def engines_ready(self, names: Sequence[str]) -> None: ...

    def trial_started(self, trial: PlannedTrial) -> None: ...

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...


def run_trials(
    sweep: str,
    trials: Sequence[PlannedTrial],
    observer: Observer,
    *,
    address: str | None = None,
    max_concurrent_trials: int | None = None,
    threads_per_engine: int | None = None,
) -> bool:
    """Train every one of these trials and tell the observer of each; returns whether it was interrupted.

    Each trial is reported with exactly one record, unless an interrupt came before it began. Joins the Ray at
    `address`, or starts one on this machine. Ctrl-C or SIGTERM ends running trials at their next step (they are
    recorded as cancelled); a second one raises `KeyboardInterrupt` at once. What the observer raises ends the sweep and
    is raised here.
    """
    with _ray(address), tempfile.TemporaryDirectory(prefix="adaptune-tune-") as scratch, _Interrupt() as interrupt:
        layout = lay_out(ray.cluster_resources(), threads_per_engine=threads_per_engine)
        with engine_pool(layout) as (pool, _):
            observer.engines_ready(engine_names(pool, ENGINE_START_TIMEOUT_S))
            recorder = _Recorder(sweep, trials, observer, pool, interrupt)
            concurrent = min(max_concurrent_trials or layout.count, layout.count)
            try:
                _tuner(sweep, trials, recorder, pool, concurrent, scratch).fit()
            except tune.TuneError:
                if recorder.observer_error is not None:
                    raise recorder.observer_error from None
                raise
            finally:
                recorder.record_missing()
        return interrupt.came


def _tuner(
    sweep: str, trials: Sequence[PlannedTrial], recorder: _Recorder, pool: Any, concurrent: int, scratch: str
) -> tune.Tuner:
    configs = {trial.trial_id: trial.config for trial in trials}
    return tune.Tuner(
        # A hundredth of a core each: they wait for engines, and one node's engines leave a tenth of a core free.
        tune.with_resources(tune.with_parameters(EngineTrial, pool=pool, trials=configs), {"cpu": 0.01}),
        param_space={"trial_id": tune.grid_search(list(configs))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["trial_id"],
            trial_dirname_creator=lambda trial: trial.config["trial_id"],
        ),
        run_config=tune.RunConfig(
            name=sweep,
            storage_path=scratch,
            callbacks=[recorder],
            stop=_Stopper(recorder),
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial keeps nothing of its own
            verbose=0,
        ),
    )


class _Interrupt:
    """Catches the first Ctrl-C or SIGTERM as a wish to end well; the second one raises."""

    def __init__(self) -> None:
        self.came = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:
            logger.debug("not in the main thread: signals are left to the caller")
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


class _Recorder(tune.Callback):
    """Turns what Tune tells of its trials into records, exactly one a trial."""

    def __init__(
        self, sweep: str, trials: Sequence[PlannedTrial], observer: Observer, pool: Any, interrupt: _Interrupt
    ) -> None:
        self._sweep = sweep
        self._planned = {trial.trial_id: trial for trial in trials}
        self._observer = observer
        self._pool = pool
        self._interrupt = interrupt
        self._cancelling = False
        self._running: dict[str, str] = {}  # trial_id -> when it started
        self._epochs: dict[str, list[EpochReport]] = {}
        self._engines: dict[str, str] = {}
        self._recorded: set[str] = set()
        self.observer_error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for `Tuner.restore`; we resume from the store, and an observer may hold anything.
        return {}

    @property
    def has_ended_early(self) -> bool:
        """Whether an interrupt came and every trial it met has ended."""
        return self._cancelling and not self._running

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._interrupt.came and not self._cancelling:
            self._cancelling = True
            self._pool.cancel_all.remote()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        planned = self._planned[trial.config["trial_id"]]
        if not self._cancelling and planned.trial_id not in self._running:
            self._running[planned.trial_id] = _now()
            self._tell(self._observer.trial_started, planned)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        planned = self._planned[trial.config["trial_id"]]
        if ENGINE in result:
            self._engines[planned.trial_id] = result[ENGINE]
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
        else:  # refused by the pool: the sweep was cancelled before it began
            self._running.pop(planned.trial_id, None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        planned = self._planned[trial.config["trial_id"]]
        if planned.trial_id in self._running:  # ended by Tune, not by itself
            self._record(planned, self._cut_short(planned, OutcomeStatus.PRUNED))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        planned = self._planned[trial.config["trial_id"]]
        error = trial.get_error()
        text = "".join(traceback.format_exception(error)) if error else "the trial's process died"
        self._record(planned, self._cut_short(planned, OutcomeStatus.FAILED, text))

    def record_missing(self) -> None:
        """Record as cancelled what Tune ended without a word, unless the observer is what failed."""
        if self.observer_error is not None:
            return
        for trial_id in list(self._running):
            self._record(self._planned[trial_id], self._cut_short(self._planned[trial_id], OutcomeStatus.CANCELLED))

    def _cut_short(self, trial: PlannedTrial, status: OutcomeStatus, error: str | None = None) -> TrialOutcome:
        """The outcome of a trial that could not report its own."""
        epochs = tuple(self._epochs.get(trial.trial_id, ()))
        started_at = self._running.get(trial.trial_id) or _now()
        return TrialOutcome(
            status=status,
            started_at=started_at,
            duration_s=(datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds(),
            epochs=epochs,
            validation_score=epochs[-1].validation_score if epochs else None,
            validation=epochs[-1].validation if epochs else {},
            trained_params=trial.trained_params,
            trained_params_without_head=trial.trained_params_without_head,
            total_params=trial.total_params,
            error=error,
        )

    def _record(self, trial: PlannedTrial, outcome: TrialOutcome) -> None:
        if trial.trial_id in self._recorded:
            return
        record = make_record(self._sweep, trial, outcome, engine=self._engines.get(trial.trial_id))
        self._recorded.add(trial.trial_id)
        self._running.pop(trial.trial_id, None)
        self._epochs.pop(trial.trial_id, None)
        self._pool.release.remote(trial.trial_id)  # the trial's own process may have died with its engine on loan
        self._tell(self._observer.trial_ended, record)

    def _tell(self, event: Callable[..., None], *what: Any) -> None:
        """Tell the observer, keeping what it raises: Tune would hand on its text alone."""
        try:
            event(*what)
        except Exception as error:
            self.observer_error = error
            raise


class _Stopper(tune.Stopper):
    """Ends Tune's loop once an interrupted sweep's running trials have ended."""

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._recorder.has_ended_early


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A connected Ray: the one at `address`, or one of this machine that ends with the sweep."""
    os.environ.update(_TUNE_ENVIRONMENT)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of a sweep who was not asked to be
    # Tune tells of every failed trial with a traceback; the record holds it, and the progress display the terminal.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():  # the caller's own: joined as it is, and left running
        yield
        return
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # The object store holds only configurations and reports.
        options |= {"include_dashboard": False, "object_store_memory": 200 * 2**20}
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # interrupts are ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store and the tracker record; CSV, JSON and TensorBoard do not
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the store is what a sweep resumes from, not Tune's snapshots
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the record holds the traceback
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # references to local folders stay valid
    "RAY_AIR_NEW_OUTPUT": "0",
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
