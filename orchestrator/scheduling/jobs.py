"""A cluster's job server: the sweeps that were submitted to it, where they stand, what they print, and their end.

A job is found again by the metadata it was submitted with, from any machine that reaches the server. Jobs of others
bear no such metadata and are left alone.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from orchestrator.secrets import address_faults, masked
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

# What a submitted job is found again by.
SWEEP_KEY, STORE_KEY = "adaptune.sweep", "adaptune.store"
# As in Ray's own commands, these win over an address that is given, and the first wins over the second.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_SCHEMES = {"http": 80, "https": 443, "ray": 10001}
# A server takes a connection within so long, or is not there.
ANSWER_WITHIN_S = 15.0
# Whoever follows a log bears so long a silence of the server, time that a laptop sleeps not counted.
SILENCE_S = 300.0
_RETRY_S = 2.0
_LONGEST_REASON = 300  # characters

# In words of ours: what Ray calls SUCCEEDED is a trial's `completed`.
STATUSES = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "completed",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
_ENDED = ("completed", "failed", "stopped")
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class SubmittedSweep:
    """A sweep that was submitted as a job, as its cluster tells of it."""

    job_id: str
    sweep: str
    status: str  # one of the values of STATUSES
    started_at: str | None  # UTC ISO 8601
    ended_at: str | None
    store: str | None  # as it was named when it was submitted, without keys; None where the job does not tell
    exit_code: int | None  # of its driver, where the cluster knows it
    message: str | None  # what the cluster says of it

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def exit_status(self) -> int | None:
        """That of the sweep's own command; None while it goes on. A sweep that was stopped counts as interrupted."""
        if not self.has_ended:
            return None
        if self.status == "completed":
            return 0
        return INTERRUPTED if self.status == "stopped" else self.exit_code or 1


class JobServer:
    """The job server at an address.

    Every method raises `FaultsError` where the server cannot be reached, refuses, or is no job server.
    """

    def __init__(self, client: Any, address: str) -> None:
        """`client` is Ray's; `address` is shown where something is said of it."""
        self.client = client
        self.address = address

    def submit(
        self, *, job_id: str, entrypoint: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> str:
        """Send a job with its files and return its id."""
        with self._asking():
            return str(
                self.client.submit_job(
                    submission_id=job_id,
                    entrypoint=entrypoint,
                    runtime_env=dict(runtime_env),
                    metadata=dict(metadata),
                )
            )

    def sweeps(self) -> list[SubmittedSweep]:
        """The sweeps that were submitted to this cluster, the last one first."""
        return _sweeps_of(self._details())

    def find(self, name: str | None) -> SubmittedSweep:
        """The job of this id; or of the sweep of this name, or of any sweep, the one that runs or else began last.

        Raises `FaultsError` where there is none, where it is no sweep's, or where several sweeps of the name run.
        """
        details = self._details()
        found = _sweeps_of(details)
        if exact := [sweep for sweep in found if sweep.job_id == name]:
            return exact[0]
        named = [sweep for sweep in found if name in (None, sweep.sweep)]
        at_work = [sweep for sweep in named if not sweep.has_ended]
        if len(at_work) > 1:
            ids = ", ".join(sweep.job_id for sweep in at_work)
            of = "" if name is None else f" of the name {name!r}"
            raise self._fault(f"JOB must name one job, but several sweeps{of} are at work: {ids}")
        if chosen := at_work or named:
            return chosen[0]
        if name is None:
            raise self._fault("there must be a submitted sweep, but this cluster has none; `adaptune submit` sends one")
        if any(name in (each.submission_id, each.job_id) for each in details):
            raise self._fault(
                f"JOB must be a sweep that adaptune submitted, but {name!r} is a job of another kind; "
                "`ray job` looks after those"
            )
        raise self._fault(_unknown(name, found))

    def _details(self) -> Sequence[Any]:
        with self._asking():
            return list(self.client.list_jobs())

    def reread(self, job_id: str) -> SubmittedSweep:
        """How a job stands now."""
        with self._asking():
            found = _submitted(self.client.get_job_info(job_id))
        if found is None:
            raise self._fault(f"{job_id!r} is a job of another kind")
        return found

    def log(self, job_id: str) -> str:
        """What a job has printed so far."""
        with self._asking():
            return str(self.client.get_job_logs(job_id))

    def stop(self, job_id: str) -> None:
        """Ask a job to end in order. Returns at once; a job that has ended stays as it is."""
        with self._asking():
            self.client.stop_job(job_id)

    def follow(self, job_id: str, show: Callable[[str], None], tell: Callable[[str], None]) -> SubmittedSweep:
        """Hand a job's log to `show` as it comes, from its beginning, and return how the job ended.

        A lost connection is made anew and the log goes on where it was; `tell` is given a line where the server does
        not answer. Raises `FaultsError` where it stays silent for `SILENCE_S`.
        """
        shown, silent_since = 0, None
        while True:
            is_cut_off = False
            try:
                shown = asyncio.run(self._tail(job_id, shown, show))
            except _CutOff as cut:
                logger.debug("the log was cut off: %s", cut)
                shown, is_cut_off = cut.shown, True
            try:
                sweep = self.reread(job_id)
                if sweep.has_ended and is_cut_off and (rest := self.log(job_id)[shown:]):
                    show(rest)
                if sweep.has_ended:
                    return sweep
                silent_since = None
            except FaultsError:
                if silent_since is None:
                    silent_since = time.monotonic()
                    tell(f"{self.address} does not answer. The job goes on without it; this waits for the answer.")
                elif time.monotonic() - silent_since >= SILENCE_S:
                    raise
            time.sleep(_RETRY_S)

    async def _tail(self, job_id: str, shown: int, show: Callable[[str], None]) -> int:
        """Show what comes after the first `shown` characters; returns how many are shown then."""
        seen = 0
        try:
            async for text in self.client.tail_job_logs(job_id):
                if new := text[max(0, shown - seen) :]:
                    show(new)
                seen += len(text)
        except Exception as error:  # of Ray, of aiohttp or of a socket
            raise _CutOff(max(seen, shown), error) from error
        return max(seen, shown)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except FaultsError:
            raise
        except Exception as error:  # of Ray, of requests, or of what another kind of server answers
            logger.debug("the job server answers with an error", exc_info=True)
            raise self._fault(_reason(self.address, error)) from error

    def _fault(self, fault: str) -> FaultsError:
        return FaultsError(f"jobs of {self.address}", [fault])


class _CutOff(Exception):
    """A log ended before the job did; `shown` characters of it are on the screen."""

    def __init__(self, shown: int, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.shown = shown


def job_server_address(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str, str | None]:
    """The address to use, and the variable that it comes from where it is not the given one.

    Raises `FaultsError` where there is none, or it is none of a job server.
    """
    variable = next((name for name in ADDRESS_VARIABLES if environment.get(name)), None)
    address = environment[variable] if variable else given
    rule = "--address must be a cluster's job server such as http://HEAD:8265"
    if not address:
        raise FaultsError("jobs", [f"{rule}, but none is given; {ADDRESS_VARIABLES[0]} may name it too"])
    if "://" in address and urlsplit(address).scheme not in _SCHEMES:
        whence = f" (from {variable})" if variable else ""
        raise FaultsError("jobs", [f"{rule}, but it is {masked(address)}{whence}"])
    return address, variable if address != given else None


def connect(address: str) -> JobServer:
    """The job server at an address, spoken to once, with the token that the environment has, if any.

    Raises `FaultsError` where it cannot be reached, refuses, is no job server, or its address holds secrets.
    """
    if faults := address_faults("--address", address):
        raise FaultsError("jobs", faults)
    from ray.job_submission import JobSubmissionClient

    # It tells of every package it uploads, and its loggers have levels of their own.
    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    shown = masked(address)
    try:
        _knock(address)
        return JobServer(JobSubmissionClient(address), shown)
    except Exception as error:  # it raises whatever came in its way
        logger.debug("the job server cannot be reached", exc_info=True)
        raise FaultsError("jobs", [_reason(shown, error)]) from error


def _knock(address: str) -> None:
    """Raises `OSError` where nobody listens: Ray itself would wait for minutes. A proxy is left to knock itself."""
    place = urlsplit(address if "://" in address else f"//{address}")
    port = place.port or _SCHEMES.get(place.scheme)
    proxied = place.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(place.hostname or "")
    if place.hostname and port and not proxied:  # else a word such as auto, which Ray looks up
        socket.create_connection((place.hostname, port), timeout=ANSWER_WITHIN_S).close()


def _reason(address: str, error: Exception) -> str:
    """What is at fault and what helps, of whatever Ray's client raised."""
    words = masked(" ".join(str(error).split()))  # before it is cut: half a secret would not be known for one
    # Ray's AuthenticationError, and how a proxy in front of it words the same.
    if type(error).__name__ == "AuthenticationError" or re.search(r"\b(401|403)\b", words[:200]):
        return (
            f"{address} must let this machine in, but it asks for a token and that of this environment is missing or "
            "another; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
        )
    words = words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]}..."
    return (
        f"--address must be a cluster's job server such as http://HEAD:8265, but {address} does not answer as one "
        f"({type(error).__name__}: {words}); see that the cluster is up, that its head has "
        "ray[default], and that this machine reaches that port, by way of a tunnel if need be"
    )


def _sweeps_of(details: Sequence[Any]) -> list[SubmittedSweep]:
    """The sweeps among jobs, the last one first. One that has not begun yet is later than all that have."""
    last_first = sorted(details, key=lambda each: each.start_time or float("inf"), reverse=True)
    return [sweep for each in last_first if (sweep := _submitted(each)) is not None]


def _submitted(details: Any) -> SubmittedSweep | None:
    """What Ray's details of a job say, where it is a sweep's."""
    metadata = details.metadata or {}
    if not details.submission_id or SWEEP_KEY not in metadata:
        return None
    status = getattr(details.status, "value", details.status)
    return SubmittedSweep(
        job_id=str(details.submission_id),
        sweep=metadata[SWEEP_KEY],
        status=STATUSES.get(status, str(status).lower()),
        started_at=_moment(details.start_time),
        ended_at=_moment(details.end_time),
        store=metadata.get(STORE_KEY),
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip() or None,
    )


def _moment(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None


def _unknown(name: str, found: Sequence[SubmittedSweep]) -> str:
    names = [sweep.job_id for sweep in found]
    near = difflib.get_close_matches(name, [*names, *(sweep.sweep for sweep in found)], n=3)
    near += [each for each in names if each.startswith(name) and each not in near]
    hint = f"; did you mean {' or '.join(map(repr, near[:3]))}?" if near else "."
    last = ", ".join(names[-5:]) or "none"
    return f"unknown job {name!r}{hint} Submitted last: {last}; `adaptune jobs` lists all"
