"""A sweep from spec to report: the one place that knows plan, store, tracker, scheduler and analysis together.

The command line and the Python façade both end here.
"""

from __future__ import annotations

import functools
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow.fs

from orchestrator.absolute_paths import with_absolute_paths
from orchestrator.analysis.results import Results
from orchestrator.engine_status import EngineStatus
from orchestrator.plan import PlannedTrial, SweepPlan, plan_sweep, plan_table, remaining
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.spec import SweepSpec
from orchestrator.store import Store
from orchestrator.sweep_file import read_sweep
from trainables.faults import FaultsError
from trainables.outcome import EpochReport

if TYPE_CHECKING:
    from orchestrator.tracking import Tracker

logger = logging.getLogger(__name__)

# Each ended trial is a segment of its own in the store; so many of them are merged into one.
COMPACT_EVERY = 200
# Between two notes in the store of what the engines are doing.
NOTE_EVERY_S = 5.0


class Progress(Protocol):
    """Who shows a sweep's progress."""

    def planned(self, trials: int, done: int) -> None: ...

    def engines_starting(self, count: int) -> None: ...

    def engines_ready(self, names: Sequence[str]) -> None: ...

    def engines_working(self, engines: Sequence[EngineStatus]) -> None: ...

    def trial_started(self, trial: PlannedTrial) -> None: ...

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """What came of one `run` or `resume`."""

    results: Results
    trained: int  # trials that this run trained, whatever came of them
    interrupted: bool
    report: tuple[str, ...]  # paths of the files written below STORE/report/


def default_store(name: str) -> Path:
    """Where a sweep's records go when no store is named."""
    return Path("sweeps") / name


def load_results(store: str | Path) -> Results:
    """The results of a sweep, finished or not, for questions in Python. Raises `FaultsError` where there is none."""
    opened = Store(store)
    return Results(opened.trials(), opened.epochs(), opened.plan_table(), opened.ablations())


def run_sweep(
    sweep: SweepSpec | Mapping[str, Any] | str | Path,
    store: str | Path | None = None,
    *,
    tracking_uri: str | None = None,
    address: str | None = None,
) -> Results:
    """Train what is missing of a sweep and return its results.

    Args:
        sweep: a `SweepSpec`, a mapping of its shape, or a sweep file's path or packaged name.
        store: folder or URI of the store; `./sweeps/<name>` if none is named.
        tracking_uri: MLflow's tracking store; `MLFLOW_TRACKING_URI` or `./sweeps/mlflow.db` if none is named.
        address: a running Ray to join; one is started on this machine if none is named.

    Raises `FaultsError` with every fault of what was given, before anything starts.
    """
    values = read_sweep(str(sweep)) if isinstance(sweep, str | Path) else sweep
    plan, opened = prepare(values, store)
    return execute(plan, opened, Silent(), tracking_uri=tracking_uri, address=address).results


def prepare(values: Any, store: str | Path | None = None, *, widen: bool = False) -> tuple[SweepPlan, Store]:
    """Plan a sweep and find its store, without starting or writing anything.

    A store that exists must hold this very sweep, or with `widen` a part of it. Raises `FaultsError` otherwise.
    """
    plan = plan_sweep(with_absolute_paths(values))
    opened = Store(store if store is not None else default_store(plan.spec.name))
    if opened.exists():
        held = set(opened.plan_table()["trial_id"].to_pylist())
        asked = {trial.trial_id for trial in plan.trials}
        if lost := held - asked:
            rule = "a wider sweep must keep every planned trial" if widen else "a store belongs to one sweep"
            fix = (
                "keep what the sweep had and add to it"
                if widen
                else "name another one with --store, or widen this one with `adaptune resume STORE SWEEP`"
            )
            fault = f"{rule}, but {len(lost)} of the {len(held)} trials planned in {opened.uri} are not in it; {fix}"
            raise FaultsError(f"store {opened.uri}", [fault])
        if asked - held and not widen:
            fault = (
                f"a store belongs to one sweep, but {len(asked - held)} of the {len(asked)} trials are new to "
                f"{opened.uri}; widen it with `adaptune resume {opened.uri} SWEEP`, or name another one with --store"
            )
            raise FaultsError(f"store {opened.uri}", [fault])
    return plan, opened


def execute(
    plan: SweepPlan,
    store: Store,
    progress: Progress,
    *,
    tracking_uri: str | None = None,
    address: str | None = None,
) -> SweepRun:
    """Train every planned trial that has no finished record, and write the report.

    Failed and cancelled trials are tried again; their earlier records move to STORE/superseded. Raises
    `StoreLockedError` where another driver is at work on the store.
    """
    # Here, not above: questions to finished sweeps come through this module too and need neither Ray nor MLflow.
    from orchestrator.scheduling.tuner import run_trials
    from orchestrator.tracking import Tracker

    with store.lock():
        resumed = store.exists()
        if resumed:
            store.widen(plan.spec.to_json(), plan_table(plan))
            unfinished = [trial_id for trial_id, status in store.statuses().items() if not status.is_finished()]
            store.retire(unfinished)
        else:
            store.create(plan.spec.to_json(), plan_table(plan))
        todo = remaining(plan, store.finished_ids())
        progress.planned(len(plan.trials), len(plan.trials) - len(todo))
        driver = _Driver(
            store,
            functools.partial(Tracker, plan.spec.name, plan.spec.to_json(), tracking_uri=tracking_uri),
            progress,
            planned=[trial.trial_id for trial in plan.trials] if resumed else None,
        )
        end = TrialStatus.CANCELLED  # what MLflow is told where an error ends the sweep here
        try:
            interrupted = bool(todo) and run_trials(
                plan.spec.name,
                todo,
                driver,
                address=address,
                max_concurrent_trials=plan.spec.search.max_concurrent_trials,
                early_stopping=plan.spec.early_stopping,
            )
            store.end_working()
            store.compact()
            results = load_results(store.uri)
            if not interrupted:
                end = TrialStatus.FAILED if results.counts().get(TrialStatus.FAILED) else TrialStatus.COMPLETED
            with tempfile.TemporaryDirectory(prefix="adaptune-report-") as folder:
                report = write_report_into(store, results, Path(folder))
                driver.tracker.log_artifacts(folder, "report")
                driver.tracker.close(end, store.records)  # within the folder's life: the report is read here
        finally:
            store.end_working()
            driver.tracker.close(end, store.records)
    return SweepRun(results=results, trained=driver.ended, interrupted=interrupted, report=report)


def write_report_into(store: Store, results: Results, folder: Path | None = None) -> tuple[str, ...]:
    """Write the report of a store's results to STORE/report/, by way of a local folder."""
    from orchestrator.analysis.report import write_report

    with tempfile.TemporaryDirectory(prefix="adaptune-report-") as scratch:
        local = folder or Path(scratch)
        spec = SweepSpec.model_validate_json(store.spec_json())
        files = write_report(results, local, title=spec.name, spec_json=store.spec_json())
        target = f"{store.path}/report"
        store.filesystem.create_dir(target, recursive=True)
        pyarrow.fs.copy_files(str(local), target, destination_filesystem=store.filesystem)
        return tuple(f"{store.uri.rstrip('/')}/report/{file.name}" for file in files)


class _Driver:
    """The one writer: notes what the scheduler tells in the store, then in MLflow, then for the eye."""

    def __init__(
        self, store: Store, make_tracker: Callable[[], Tracker], progress: Progress, planned: Sequence[str] | None
    ) -> None:
        """`planned` holds the trials of a sweep that MLflow may know already; None for a new one."""
        self._store = store
        self._make_tracker = make_tracker
        self._progress = progress
        self._planned = planned
        self._next_note = 0.0
        self.ended = 0

    @cached_property
    def tracker(self) -> Tracker:
        """The window in MLflow, which takes seconds to open: it is opened while engines load, or when first used."""
        tracker = self._make_tracker()
        if self._planned is not None:
            tracker.refill(self._store.records(), planned=self._planned)
        return tracker

    def engines_starting(self, count: int) -> None:
        self._progress.engines_starting(count)
        _ = self.tracker

    def engines_ready(self, names: Sequence[str]) -> None:
        self._progress.engines_ready(names)

    def engines_working(self, engines: Sequence[EngineStatus]) -> None:
        self._progress.engines_working(engines)
        if time.monotonic() >= self._next_note:
            self._next_note = time.monotonic() + NOTE_EVERY_S
            self._store.note_working(engines)

    def trial_started(self, trial: PlannedTrial) -> None:
        self.tracker.trial_started(trial)
        self._progress.trial_started(trial)

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None:
        self.tracker.epoch(trial.trial_id, epoch)
        self._progress.epoch_ended(trial, epoch)

    def trial_ended(self, record: TrialRecord) -> None:
        self._store.append([record])
        self.ended += 1
        if self.ended % COMPACT_EVERY == 0:
            self._store.compact()
        self.tracker.trial_ended(record)
        self._progress.trial_ended(record)


class Silent:
    """Progress that nobody watches."""

    def planned(self, trials: int, done: int) -> None: ...

    def engines_starting(self, count: int) -> None: ...

    def engines_ready(self, names: Sequence[str]) -> None: ...

    def engines_working(self, engines: Sequence[EngineStatus]) -> None: ...

    def trial_started(self, trial: PlannedTrial) -> None: ...

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...
