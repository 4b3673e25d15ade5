"""`adaptune run` and `adaptune resume`: check everything, train, show the answer, say how to go on."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any, TypedDict

from orchestrator.analysis.text import tables, wording
from orchestrator.cli.data import brief
from orchestrator.cli.progress import TerminalProgress
from orchestrator.cli.screen import console
from orchestrator.planning.preflight import data_warnings
from orchestrator.record import TrialStatus
from orchestrator.run.continuation import outcome_notice
from orchestrator.run.sweep import SweepRun, execute, prepare
from orchestrator.scheduling.early_end import Budget
from orchestrator.spec.sweep_file import apply_overrides, read_sweep
from orchestrator.store import Store
from trainables.faults import FaultsError

COMPLETED, SOME_FAILED, BUDGET_USED_UP = 0, 1, 3
SIGNAL = 128  # and the signal's number, as a shell tells it


def run_from_file(
    sweep: str,
    overrides: Sequence[str],
    *,
    store: str | None,
    address: str | None,
    tracking_uri: str | None,
    budget: Budget,
    take_over: bool,
    only_driver: bool,
    as_json: bool,
) -> int:
    """Train what is missing of a declared sweep."""
    values = read_sweep(sweep, overrides)
    options = _Options(
        address=address, tracking_uri=tracking_uri, budget=budget, take_over=take_over, only_driver=only_driver
    )
    return _train(values, store, options, widen=False, as_json=as_json)


def run_from_store(
    store: str,
    sweep: str | None,
    overrides: Sequence[str],
    *,
    name: str | None,
    address: str | None,
    tracking_uri: str | None,
    budget: Budget,
    take_over: bool,
    only_driver: bool,
    as_json: bool,
) -> int:
    """Train what is missing of a store's sweep, widened by a larger one where one is given.

    That is the sweep last run there, or the one of this name.
    """
    if sweep is not None and name is not None:
        raise FaultsError("resume", [f"--sweep: a sweep file has a name itself, but got {sweep} and --sweep {name}"])
    opened = Store(store)
    if not opened.exists():
        raise FaultsError(
            f"store {store}",
            [f"there must be a store to resume, but {opened.uri} holds none; `adaptune run SWEEP` starts one"],
        )
    if sweep is not None:
        values = read_sweep(sweep, overrides)
    else:
        values = apply_overrides(json.loads(opened.spec_json(name)), overrides)
    options = _Options(
        address=address, tracking_uri=tracking_uri, budget=budget, take_over=take_over, only_driver=only_driver
    )
    return _train(values, store, options, widen=True, as_json=as_json)


class _Options(TypedDict):
    """How `execute` trains, as the command line says."""

    address: str | None
    tracking_uri: str | None
    budget: Budget
    take_over: bool
    only_driver: bool


def _train(values: Any, store: str | None, options: _Options, *, widen: bool, as_json: bool) -> int:
    plan, opened = prepare(values, store, widen=widen)
    # With --json, standard output is the answer alone.
    screen = console(stderr=as_json)
    if notice := outcome_notice(plan, opened):
        screen.print(notice, soft_wrap=True)
    warnings = data_warnings(plan)
    for sentence in brief(warnings):  # the store may still refuse, and then standard output stays empty
        console(stderr=True).print(sentence, soft_wrap=True)
    # Ray writes of processes that died to standard output.
    elsewhere = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    resume = _how_to_resume(opened.uri, options)
    try:
        with TerminalProgress(screen, plan.varied, plan.spec.backbones) as progress, elsewhere:
            done = execute(plan, opened, progress, warnings=warnings, **options)
    except KeyboardInterrupt:
        screen.print(f"Interrupted at once. What has a record is kept; go on with:  {resume}", soft_wrap=True)
        raise
    except FaultsError:
        raise
    except Exception:  # which app.main tells of
        screen.print(f"What has a record is kept. What is missing is trained by:  {resume}", soft_wrap=True)
        raise
    counts = done.results.counts()
    if as_json:
        print(json.dumps(_answer(plan.spec.name, opened.uri, done)))
    else:
        screen.print(tables.summary(done.results))
        screen.print()
        if not done.trained and not done.interrupted:
            screen.print("Nothing to train: every planned trial has a finished record.")
        if done.report:
            page = next((path for path in done.report if path.endswith(".html")), opened.uri)
            screen.print(f"Report: {page}", soft_wrap=True)
    if done.report_fault:
        report = shlex.join(["adaptune", "report", opened.uri])
        screen.print(f"The report is missing ({done.report_fault}); write it with:  {report}", soft_wrap=True)
    if done.early_end is not None:
        kept = "Everything finished is recorded"
        if done.unrecorded:
            kept = f"Not recorded, since the storage refused it: {wording.plural(done.unrecorded, 'trained trial')}"
        what = f"Ended by {_ended_by(done)}." if done.early_end.budget else "Interrupted."
        screen.print(f"{what} {kept}; go on with:  {resume}", soft_wrap=True)
        return BUDGET_USED_UP if done.early_end.signal is None else SIGNAL + done.early_end.signal
    return SOME_FAILED if counts.get(TrialStatus.FAILED) else COMPLETED


def _how_to_resume(store: str, options: _Options) -> str:
    """The command that goes on in this store, on the same cluster, with the same tracking store and the same word."""
    places = {"--address": options["address"], "--tracking-uri": options["tracking_uri"]}
    given = [word for option, place in places.items() if place is not None for word in (option, place)]
    vouched = ["--only-driver"] if options["only_driver"] else []
    return shlex.join(["adaptune", "resume", store, *given, *vouched])


def _answer(name: str, store: str, done: SweepRun) -> dict[str, Any]:
    return {
        "sweep": name,
        "store": store,
        "trained": done.trained,
        "interrupted": done.interrupted,
        "ended_by": _ended_by(done),
        "unrecorded": done.unrecorded,
        "counts": {status.value: number for status, number in done.results.counts().items()},
        "best": done.results.best().to_pylist(),
        "recommend": done.results.recommend().to_pylist(),
        "report": list(done.report),
    }


def _ended_by(done: SweepRun) -> str | None:
    """The signal or the budget that ended it early."""
    if done.early_end is None:
        return None
    number = done.early_end.signal
    return done.early_end.budget if number is None else signal.Signals(number).name
