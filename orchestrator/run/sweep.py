"""A sweep from spec to report: the one place that knows plan, store, tracker, scheduler and analysis together.

The command line and the Python façade both end here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.results import Results
from orchestrator.planning.plan import SweepPlan, plan_sweep, plan_table, planned_from_table, remaining, trials_table
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run.continuation import check_continuation, check_held, continue_from, outcome_notice, outdated_trials
from orchestrator.run.kept_predictions import KeptPredictions
from orchestrator.run.recording import Progress, Recording, Silent
from orchestrator.run.winner_models import winner_models
from orchestrator.run.winners import Winners
from orchestrator.scheduling.early_end import Budget, EarlyEnd, Interrupted, endings_raised
from orchestrator.secrets import address_faults
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.early_stopping import NONE
from orchestrator.spec.spec import SweepSpec
from orchestrator.spec.sweep_file import read_sweep
from orchestrator.store import Store, StoreLockedError
from orchestrator.store.curves import epochs_table
from orchestrator.store.files import Folder
from orchestrator.store.schema import with_planned_hyperparameters
from orchestrator.trial_source import FixedTrials, SkipFinished, TrialSource
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from orchestrator.tracking import TaskData

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """What came of one `run` or `resume`."""

    results: Results
    trained: int  # trials that this run trained, whatever came of them
    early_end: EarlyEnd | None  # why it ended with trials left, where it did
    report: tuple[str, ...]  # paths of the files written below STORE/report/
    report_fault: str | None = None  # why there is none
    unrecorded: int = 0  # trials that were trained, but whose records the storage refused to the end

    @property
    def interrupted(self) -> bool:
        """Whether it ended before its trials had, by a signal or by its budget."""
        return self.early_end is not None


def default_store(name: str) -> Path:
    """Where a sweep's records go when no store is named."""
    return Path("sweeps") / name


def load_results(store: str | Path, sweep: str | None = None) -> Results:
    """The results of all sweeps in a store, or of one of them, finished or not, for questions in Python.

    Raises `FaultsError` where there is none, or where the store cannot be read.
    """
    return results_of(Store(store), sweep)


def results_of(store: Store, sweep: str | None = None) -> Results:
    """As `load_results`, of a store that is open."""
    plan, unproposed = store.plan_table(sweep), store.unproposed(sweep)
    (trials, epochs), ablations = store.trials_and_epochs(), store.ablations()
    ids = None if sweep is None else plan["trial_id"].combine_chunks()
    try:
        return Results(
            with_planned_hyperparameters(_of_trials(trials, ids), plan),
            lambda: epochs_table(_of_trials(epochs(), ids)),  # most questions do without
            plan,
            ablations and _of_trials(ablations, ids),
            unproposed=unproposed,
            predictions=KeptPredictions(store),
            non_inferiority=_declared_margin(store, sweep),
            data_warnings=store.data_warnings(),
            inference_costs=store.inference_costs(),
        )
    except (pa.ArrowException, KeyError) as error:
        fault = f"what plan.parquet and artifacts/ hold must be as adaptune wrote it, but {error}"
        raise FaultsError(f"store {store.uri}", [fault]) from error


def _of_trials(table: pa.Table, ids: pa.Array | None) -> pa.Table:
    """The rows of these trials; without ids, all."""
    return table if ids is None else table.filter(pc.is_in(table["trial_id"], ids))


def _declared_margin(store: Store, sweep: str | None) -> tuple[str, float] | None:
    """What the sweep, or the one last run, declares as `non_inferiority`."""
    try:
        declared = json.loads(store.spec_json(sweep))["non_inferiority"]
        return str(declared["reference"]), float(declared["margin"])
    except (FaultsError, ValueError, KeyError, TypeError):  # not declared; or a spec without which records can be read
        return None


def run_sweep(
    sweep: SweepSpec | Mapping[str, Any] | str | Path,
    store: str | Path | None = None,
    *,
    tracking_uri: str | None = None,
    address: str | None = None,
    max_hours: float | None = None,
    max_failures: int | None = None,
    max_cost: float | None = None,
    price: float | None = None,
    progress: Progress | None = None,
    take_over: bool = False,
    only_driver: bool = False,
) -> Results:
    """Train the trials of a sweep that have no finished record, and return its results.

    Args:
        sweep: a `SweepSpec`, a mapping of its shape, or a sweep file's path or packaged name.
        store: folder or URI of the store; `./sweeps/<name>` if none is named. Several sweeps may share one, and train
            nothing that any of them has trained.
        tracking_uri: MLflow's tracking store; `MLFLOW_TRACKING_URI` or `./sweeps/mlflow.db` if none is named.
        address: a running Ray cluster to join; Ray is started on this machine if none is named.
        max_hours: hours after which the sweep ends in order, with trials left to a later run.
        max_failures: number of failed trials after which it does.
        max_cost: what its devices may cost until it does, each at `price` an hour: the GPUs that have engines, however
            many, or where there are none the engines on CPUs. Cores beside GPUs are not counted.
        price: of one GPU, or of one CPU engine where there is no GPU, for one hour, in the currency of `max_cost`.
        progress: who is told how far it is. A notebook shows it if none is named, elsewhere nobody is told.
        take_over: whether to take the store over from a driver at work there without waiting for it to fall silent.
        only_driver: your word that nothing else runs on this store, without which a place that cannot keep a second
            driver out (`gs://`, `abfs://`, `hdfs://`, `s3://` without boto3) is refused.

    Raises `FaultsError` with every fault of what was given, before anything starts.
    """
    from orchestrator.run import notebook  # here: questions to finished sweeps draw nothing

    budget = Budget(max_hours=max_hours, max_failures=max_failures, max_cost=max_cost, price=price)
    values = read_sweep(str(sweep)) if isinstance(sweep, str | Path) else sweep
    plan, opened = prepare(values, store)
    if notice := outcome_notice(plan, opened):
        logger.warning("%s", notice)
    if progress is None and notebook.is_notebook():
        with notebook.NotebookProgress(plan.varied, plan.spec.backbones) as shown:
            return execute(
                plan,
                opened,
                shown,
                tracking_uri=tracking_uri,
                address=address,
                budget=budget,
                take_over=take_over,
                only_driver=only_driver,
            ).results
    told = progress or Silent()
    return execute(
        plan,
        opened,
        told,
        tracking_uri=tracking_uri,
        address=address,
        budget=budget,
        take_over=take_over,
        only_driver=only_driver,
    ).results


def prepare(values: Any, store: str | Path | None = None, *, widen: bool = False) -> tuple[SweepPlan, Store]:
    """Plan a sweep and find its store, without starting or writing anything.

    A store that holds a sweep of this name must hold this very one, or with `widen` a part of it; without one of this
    name it is free for another, and with `widen` it is not. Raises `FaultsError` otherwise.
    """
    plan = plan_sweep(with_absolute_paths(values))
    opened = Store(store if store is not None else default_store(plan.spec.name))
    if widen:
        check_held(plan, opened)
    check_continuation(plan, opened, widen=widen)
    return plan, opened


def execute(
    plan: SweepPlan,
    store: Store,
    progress: Progress,
    *,
    tracking_uri: str | None = None,
    address: str | None = None,
    budget: Budget | None = None,
    make_report: bool = True,
    take_over: bool = False,
    only_driver: bool = False,
    warnings: pa.Table | None = None,
) -> SweepRun:
    """Train every planned trial that has no finished record, and write the report.

    `warnings` are those of `orchestrator.planning.preflight.data_warnings`, which are looked for where they are not
    given.

    Failed and cancelled trials are tried again; their earlier records move to STORE/superseded, and so do those of
    trials that an older adaptune trained otherwise. A storage that refuses records makes the sweep wait. Raises
    `StoreLockedError` where another driver is at work on the store or takes it over, and `FaultsError` where Ray cannot
    be had, or where the store's place cannot keep a second driver out and `only_driver` is not said.
    """
    # Here, not above: questions to finished sweeps come through this module too and need no MLflow and no tokenizer.
    from orchestrator.planning.preflight import data_warnings
    from orchestrator.tracking import Tracker, given_tracking_uri

    given_tracking_uri(tracking_uri)
    if faults := address_faults("the address", address or ""):
        raise FaultsError("Ray", faults)
    name = plan.spec.name
    winners = None if plan.spec.keep == "none" else Winners(plan.spec.keep, len(plan.spec.seeds))
    warnings = data_warnings(plan) if warnings is None else warnings
    known = functools.partial(_records, store, name)
    with endings_raised(), store.lock(take_over=take_over, only_driver=only_driver):
        is_new = not store.exists()
        planned = _begin(plan, store)
        store.write_data_warnings(warnings, [each.task.info.name for each in plan.task_methods])
        driver = Recording(
            store,
            functools.partial(
                Tracker,
                name,
                plan.spec.to_json(),
                varied=plan.varied,
                data=_task_data(plan),
                tracking_uri=tracking_uri,
            ),
            progress,
            known=known,
            planned=None if is_new else frozenset(planned["trial_id"].to_pylist()),
            winners=winners,
        )
        driver.find_kept(name)
        source = _trial_source(plan, store, planned, driver)
        done = len(store.finished_ids().intersection(planned["trial_id"].to_pylist()))
        progress.planned(done + source.most, done)
        end = TrialStatus.CANCELLED  # what MLflow is told where an error ends the sweep here
        try:
            early_end = _train(plan, source, driver, known, address, budget)
            is_complete = early_end is None and source.is_exhausted()
            driver.settle_weights(is_complete=is_complete)
            try:
                _settle(store, is_complete=is_complete)
                results = driver.wait_for(lambda: results_of(store, name))
            except FaultsError as error:
                if early_end is None or early_end.signal is None:
                    raise
                raise Interrupted(early_end.signal, "; ".join([*error.faults, *_lost(driver)])) from None
            if early_end is None:
                end = TrialStatus.FAILED if results.counts().get(TrialStatus.FAILED) else TrialStatus.COMPLETED
            with tempfile.TemporaryDirectory(prefix="adaptune-report-") as folder:
                report, fault = _try_report(store, results, Path(folder), name) if make_report else ((), None)
                driver.tracker.show_best(results.best(per=("task",)).to_pylist())
                driver.tracker.log_artifacts(folder, "report")
                if is_complete and winners is not None and plan.spec.log_models:
                    driver.tracker.show_models(driver.wait_for(lambda: winner_models(plan, store, winners)))
                driver.tracker.close(end, known)  # within the folder's life: the report is read here
        except StoreLockedError:  # the store, its notes and its runs in MLflow are another driver's now
            driver.leave_tracker()
            raise
        finally:
            store.remove_engine_snapshot()
            driver.close_tracker(end)
    return SweepRun(
        results=results,
        trained=driver.ended,
        early_end=early_end,
        report=report,
        report_fault=fault,
        unrecorded=driver.unrecorded,
    )


def write_report_into(
    store: Store, results: Results, folder: Path | None = None, *, sweep: str | None = None
) -> tuple[str, ...]:
    """Write the report of a store's results, or of those of one of its sweeps, to STORE/report/.

    By way of a local folder. Raises `FaultsError` where it cannot be written.
    """
    from orchestrator.analysis.report import write_report

    names = store.sweeps() if sweep is None else (sweep,)
    spec = store.spec_json(names[0]) if len(names) == 1 else None
    with tempfile.TemporaryDirectory(prefix="adaptune-report-") as scratch:
        local = folder or Path(scratch)
        files = write_report(results, local, title=", ".join(names), spec_json=spec)
        target = Folder(store.filesystem, f"{store.path}/report")
        try:
            for file in files:  # each in one step: whoever has the page open never loads half of it
                target.write(file.name, file.read_bytes())
        except OSError as error:
            raise FaultsError("report", [f"STORE/report must be a folder that can be written, but {error}"]) from error
        return tuple(f"{store.uri.rstrip('/')}/report/{file.name}" for file in files)


def _task_data(plan: SweepPlan) -> list[TaskData]:
    """What each task of a plan trains on, as far as its data are here."""
    from orchestrator.tracking import TaskData

    return [
        TaskData(
            task=task.info.name,
            reference=reference,
            fingerprint=task.fingerprint,
            rows=task.rows_by_split,
            folds=task.folds,
            kind=task.info.kind,
            metric=task.info.metric,
        )
        for reference, task in {each.reference: each.task for each in plan.task_methods}.items()
        if task.fingerprint
    ]


def _begin(plan: SweepPlan, store: Store) -> pa.Table:
    """Make this the sweep that the store is at, and its plan the store's; returns the plan's rows.

    Records of outdated trials are moved aside first.
    """
    name, planned = plan.spec.name, plan_table(plan)
    check_continuation(plan, store, widen=True)  # it may have been widened since it was prepared
    with _writing(store):
        store.retire(outdated_trials(plan, store), even_finished=True)
    if plan.is_adaptive and store.exists() and name in store.sweeps():
        planned = continue_from(plan, store.plan_table(name)).kept
    store.begin(plan.spec.to_json(), planned, plan.most_trials if plan.is_adaptive else None)
    return planned


@contextlib.contextmanager
def _writing(store: Store) -> Iterator[None]:
    """Before anything is trained, a storage that refuses is a fault; later the sweep waits for it."""
    try:
        yield
    except OSError as error:
        raise FaultsError(f"store {store.uri}", [f"the store must be writable, but {error}"]) from error


def _trial_source(plan: SweepPlan, store: Store, planned: pa.Table, driver: Recording) -> TrialSource:
    """What hands out the trials that are left."""
    if not plan.is_adaptive:
        return FixedTrials(remaining(plan, store.finished_ids()))
    # Here: Optuna is for those who ask for it.
    from orchestrator.scheduling.search import adaptive_trials

    own = set(planned["trial_id"].to_pylist())
    records = store.records()
    source = adaptive_trials(
        plan,
        planned_from_table(planned),
        [record for record in records if record.trial_id in own and record.status.is_finished()],
        lambda trials: driver.planned_more(trials_table(plan.spec.name, trials)),
    )
    shared = {r.trial_id: r for r in records if r.trial_id not in own and r.status.is_finished()}
    return SkipFinished(source, shared, driver.trial_known) if shared else source


def _train(
    plan: SweepPlan,
    source: TrialSource,
    driver: Recording,
    known: Callable[[], Sequence[TrialRecord]],
    address: str | None,
    budget: Budget | None,
) -> EarlyEnd | None:
    """Train what is left; returns why it ended early, if it did. A second signal says what was lost by it."""
    if source.is_exhausted():
        return None
    try:  # here: a sweep of which nothing is left needs no Ray
        from orchestrator.scheduling.tuner import run_trials
    except ImportError as error:
        raise FaultsError("Ray", [f"Ray must be installed whole, but it cannot be imported: {error}"]) from error
    try:
        early_end = run_trials(
            plan.spec.name,
            source,
            driver,
            address=address,
            max_concurrent_trials=plan.spec.search.max_concurrent_trials,
            early_stopping=plan.spec.early_stopping,
            earlier=() if plan.spec.early_stopping == NONE else [r for r in known() if r.status.is_finished()],
            keep_predictions=plan.spec.keep_predictions,
            keep_weights=plan.spec.keep != "none",
            budget=budget,
        )
    except KeyboardInterrupt as stop:
        if not driver.unrecorded:
            raise
        raise Interrupted(getattr(stop, "number", signal.SIGINT), *_lost(driver)) from None
    driver.record_waiting()
    driver.settle_predictions()
    return early_end


def _lost(driver: Recording) -> list[str]:
    """What the user should know of records that the storage refused to the end."""
    count = driver.unrecorded
    return [f"{count} trained trials could not be recorded and will be trained again"] if count else []


def _records(store: Store, sweep: str) -> list[TrialRecord]:
    """The records of the trials that are planned for a sweep, whichever sweep had them trained."""
    return store.records(store.plan_table(sweep)["trial_id"].to_pylist())


def _settle(store: Store, *, is_complete: bool) -> None:
    """Put the store in order as far as the storage lets it."""
    store.remove_engine_snapshot()
    try:
        store.compact(plan_is_final=is_complete)
    except OSError as error:
        logger.warning("the store could not be compacted, which makes it no less whole: %s", error)


def _try_report(store: Store, results: Results, folder: Path, name: str) -> tuple[tuple[str, ...], str | None]:
    """The report's files, or why there are none: the records are there all the same."""
    try:
        return write_report_into(store, results, folder, sweep=name), None
    except FaultsError as error:
        return (), "; ".join(error.faults)
    except OSError as error:
        return (), str(error)
