"""`adaptune submit`, `jobs`, `logs`, `stop` and `status --address`: sweeps that run as jobs of a cluster."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.text import tables, wording
from orchestrator.cli.screen import Screen, console
from orchestrator.run.live import progress_in
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.sweep_file import read_sweep
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from orchestrator.scheduling.early_end import Budget
    from orchestrator.scheduling.jobs import JobServer, SubmittedSweep

BUDGET_USED_UP, INTERRUPTED = 3, 130
# How a command ends that followed a job and lost its cluster for good: as one that an error ended, see app.py.
UNKNOWN_END = 4
# Whoever detaches waits so long to hear that the trials are planned, or of the fault for which they are not.
PLANNED_WITHIN_S = 60.0
# And so long for it to begin: a cluster may have to make room, or to install what the job brings.
BEGUN_WITHIN_S = 300.0
_ASK_EVERY_S = 0.5
# The trials of a job are counted in its log, which takes a request each: those at work and so many of the last.
COUNTED_JOBS = 20
# Lines of the log that show where a job stands.
_LAST_LINES = 5


def submit_sweep(
    sweep: str,
    overrides: Sequence[str],
    *,
    address: str | None,
    store: str | None,
    tracking_uri: str | None,
    budget: Budget,
    take_over: bool,
    only_driver: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Check the sweep here, then send it to the cluster; show its log to the end, or leave once its trials are planned.

    Returns the exit status of the sweep, and 0 for one that is left while it goes on.
    """
    from orchestrator.planning.plan import plan_sweep
    from orchestrator.scheduling.submit import check_places, submit_job

    # Whether the hub's data and weights can be had is for the cluster to say, not for this machine.
    plan = plan_sweep(with_absolute_paths(read_sweep(sweep, overrides)), allow_missing=True)
    screen = console(stderr=as_json)  # with --json, standard output is the answer alone
    check_places(plan.spec.name, store, tracking_uri)
    server = _server(address)
    job = submit_job(
        plan,
        server,
        store=store,
        tracking_uri=tracking_uri,
        budget=budget,
        take_over=take_over,
        only_driver=only_driver,
    )
    screen.print(f"Job {job} is submitted to {server.address}.", soft_wrap=True)
    try:
        if not detach:
            return _follow(server, job, screen, as_json=as_json)
        return _leave(server, job, screen, as_json=as_json)
    except KeyboardInterrupt:
        _say_how_to_come_back(server, job, screen)
        return INTERRUPTED


def list_jobs(*, address: str | None, as_json: bool) -> int:
    """The sweeps that were submitted to a cluster, the last one first."""
    server = _server(address)
    sweeps = server.sweeps()
    counted = {sweep.job_id for sweep in sweeps[:COUNTED_JOBS]}
    trials = [
        _trials(server, sweep) if sweep.job_id in counted or not sweep.has_ended else _NOT_COUNTED for sweep in sweeps
    ]
    if as_json:
        jobs = [_answer(server, sweep, numbers) for sweep, numbers in zip(sweeps, trials, strict=True)]
        print(json.dumps({"address": server.address, "jobs": jobs}))
        return 0
    screen = console()
    if not sweeps:
        screen.print(f"No sweep has been submitted to {server.address}.", soft_wrap=True)
        return 0
    rows = tuple(
        (
            sweep.job_id,
            sweep.sweep,
            _status(sweep),
            wording.cell(sweep.started_at),
            _trials_words(numbers),
            wording.cell(sweep.store),
        )
        for sweep, numbers in zip(sweeps, trials, strict=True)
    )
    table = tables.TextTable(
        title=f"Sweeps submitted to {server.address}",
        left=("job", "sweep", "status", "began", "trials", "store"),
        right=(),
        rows=rows,
    )
    screen.print(tables.to_rich(table))
    return 0


def show_job(job: str | None, *, address: str | None, as_json: bool) -> int:
    """Where one job stands: the one of this id or sweep, or the last."""
    server = _server(address)
    sweep = server.find(job)
    log = server.log(sweep.job_id)
    numbers = progress_in(log)
    if as_json:
        print(json.dumps(_answer(server, sweep, numbers)))
        return 0
    screen = console()
    ended = f", ended {sweep.ended_at}" if sweep.ended_at else ""
    screen.print(f"Job {sweep.job_id}, sweep {sweep.sweep}: {_status(sweep)}", soft_wrap=True)
    screen.print(f"Began {wording.cell(sweep.started_at)}{ended}. Trials: {_trials_words(numbers)}.", soft_wrap=True)
    if sweep.store:
        screen.print(f"Records: {_place(sweep.store)}", soft_wrap=True)
    if lines := [line for line in log.splitlines() if line.strip()][-_LAST_LINES:]:
        screen.print("The log's last lines:")
        for line in lines:
            screen.print(f"  {line}", soft_wrap=True)
    return 0


def show_log(job: str, *, address: str | None, follow: bool) -> int:
    """What a job has printed; with `follow` what it prints until it ends, and then the sweep's exit status."""
    server = _server(address)
    sweep, screen = server.find(job), console()
    if not follow:
        _show(screen, server.log(sweep.job_id))
        return 0
    try:
        return _follow(server, sweep.job_id, screen, as_json=False)
    except KeyboardInterrupt:
        _say_how_to_come_back(server, sweep.job_id, screen)
        return INTERRUPTED


def stop_job(job: str, *, address: str | None, as_json: bool) -> int:
    """Ask a job to end in order, as Ctrl-C does to a sweep of this machine."""
    server = _server(address)
    sweep = server.find(job)
    if not sweep.has_ended:
        server.stop(sweep.job_id)
    if as_json:
        answer = _answer(server, sweep, _trials(server, sweep))
        print(json.dumps({**answer, "stopping": not sweep.has_ended}))
        return 0
    screen = console()
    if sweep.has_ended:
        screen.print(_end(sweep), soft_wrap=True)
        return 0
    screen.print(
        f"Job {sweep.job_id} is asked to end: its running trials end with their epoch, and all that is finished is "
        f"recorded. Submitted again with the same store, {sweep.sweep} goes on from there.\n"
        f"See it end:  {_command(server, 'logs', sweep.job_id, '--follow')}",
        soft_wrap=True,
    )
    return 0


def _server(given: str | None) -> JobServer:
    from orchestrator.scheduling.jobs import connect, job_server_address

    address, variable = job_server_address(given)
    server = connect(address)
    if variable and given:
        print(f"{variable} is set, so this goes to {server.address} and not to --address", file=sys.stderr)
    return server


def _follow(server: JobServer, job: str, screen: Screen, *, as_json: bool) -> int:
    try:
        sweep = server.follow(
            job, lambda text: _show(screen, text), lambda line: console(stderr=True).print(line, soft_wrap=True)
        )
    except FaultsError as error:
        return _lost(server, job, screen, error)
    if as_json:
        print(json.dumps(_answer(server, sweep, _trials(server, sweep))))
    if sweep.exit_status:
        screen.print(_end(sweep), soft_wrap=True)
    return sweep.exit_status or 0


def _leave(server: JobServer, job: str, screen: Screen, *, as_json: bool) -> int:
    """Wait until a job has planned its trials, and say how to find it again."""
    try:
        now = _planned(server, job)
        log = server.log(job)
    except FaultsError as error:
        return _lost(server, job, screen, error)
    if now.has_ended and now.exit_status:
        _show(screen, log)
    if as_json:
        print(json.dumps(_answer(server, now, progress_in(log))))
    if now.has_ended:
        screen.print(_end(now), soft_wrap=True)
        return now.exit_status or 0
    _say_how_to_come_back(server, job, screen)
    return 0


def _lost(server: JobServer, job: str, screen: Screen, error: FaultsError) -> int:
    """The cluster does not answer any more: how the sweep ends, nobody here knows."""
    console(stderr=True).print(str(error), soft_wrap=True)
    _say_how_to_come_back(server, job, screen)
    return UNKNOWN_END


def _planned(server: JobServer, job: str) -> SubmittedSweep:
    """The job once it runs and says how many trials are planned; or as it stands when that takes too long."""
    began, deadline = time.monotonic(), None
    while True:
        now = server.reread(job)
        if now.has_ended:
            return now
        if now.status == "running":
            deadline = deadline or time.monotonic() + PLANNED_WITHIN_S
            if progress_in(server.log(job)) is not None or time.monotonic() > deadline:
                return now
        elif time.monotonic() > began + BEGUN_WITHIN_S:
            return now
        time.sleep(_ASK_EVERY_S)


def _say_how_to_come_back(server: JobServer, job: str, screen: Screen) -> None:
    screen.print(
        f"Job {job} goes on without this terminal.\n"
        f"  how far it is:    {_command(server, 'status', job)}\n"
        f"  its log:          {_command(server, 'logs', job, '--follow')}\n"
        f"  end it in order:  {_command(server, 'stop', job)}\n"
        f"  all jobs there:   {_command(server, 'jobs')}",
        soft_wrap=True,
    )


def _command(server: JobServer, *words: str) -> str:
    return shlex.join(["adaptune", *words, "--address", server.address])


def _show(screen: Screen, text: str) -> None:
    screen.print(text, end="", soft_wrap=True)


def _end(sweep: SubmittedSweep) -> str:
    line = f"Job {sweep.job_id} has ended: {_status(sweep)}."
    if sweep.status == "failed" and sweep.exit_code is None and sweep.message:
        return f"{line} The cluster says: {sweep.message}"
    return line


def _status(sweep: SubmittedSweep) -> str:
    if sweep.status == "failed" and sweep.exit_code is not None:
        meaning = {2: "a fault in what was given", BUDGET_USED_UP: "its budget is used up", INTERRUPTED: "interrupted"}
        meaning[UNKNOWN_END] = "an error ended it, which its log names"
        words = f", {meaning[sweep.exit_code]}" if sweep.exit_code in meaning else ""
        return f"failed (exit status {sweep.exit_code}{words})"
    return sweep.status


_NOT_COUNTED: tuple[int, int] | None = None


def _trials(server: JobServer, sweep: SubmittedSweep) -> tuple[int, int] | None:
    """Trials that have ended for good and trials planned, as the job's log says."""
    return progress_in(server.log(sweep.job_id))


def _trials_words(numbers: tuple[int, int] | None) -> str:
    return wording.UNKNOWN if numbers is None else f"{numbers[0]:,} of {numbers[1]:,}"


def _place(store: str) -> str:
    return store if "://" in store else f"{store} on the cluster's head"


def _answer(server: JobServer, sweep: SubmittedSweep, numbers: tuple[int, int] | None) -> dict[str, Any]:
    done, planned = numbers or (None, None)
    return {
        "job": sweep.job_id,
        "address": server.address,
        "sweep": sweep.sweep,
        "status": sweep.status,
        "exit_status": sweep.exit_status,
        "started_at": sweep.started_at,
        "ended_at": sweep.ended_at,
        "store": sweep.store,
        "trials_done": done,
        "trials_planned": planned,
    }
