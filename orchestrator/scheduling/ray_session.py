"""A Ray to run a sweep on: one that is running, or one of this machine that ends with the sweep."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray

from orchestrator.scheduling.bare_ray import bare_ray
from orchestrator.scheduling.closed_ray import (
    OPTIONS,
    closed_ray,
    end_ray,
    loopback_kept,
    ray_told_to_the_log,
    started_patiently,
    warn_if_open,
)
from orchestrator.scheduling.early_end import endings_blocked
from orchestrator.scheduling.ray_folder import ray_folder
from orchestrator.secrets import address_faults, masked
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

# The object store holds only configurations and reports.
OBJECT_STORE_BYTES = 200 * 2**20
# A Ray that is asked to be joined takes a connection within so long, or is not there.
ANSWER_WITHIN_S = 15.0
_LONGEST_REASON = 300  # characters
_HARMLESS = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # a question that every Ray answers whoever may ask

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


@contextmanager
def ray_session(address: str | None, tell: Callable[[str], None]) -> Iterator[None]:
    """A connected Ray: the one at `address`, or one of this machine that ends with the sweep.

    A Ray that the caller has connected to is joined as it is, and left running. `tell` is given a line where the user
    should know of something. Raises `FaultsError` where Ray cannot be reached or started.
    """
    os.environ.update(_TUNE_ENVIRONMENT)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of a sweep who was not asked to be
    # Tune tells of every failed trial with a traceback; the record holds it, and the progress display the terminal.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as started:
        started.enter_context(ray_told_to_the_log())
        options: dict[str, Any] = {}
        if address is None:
            folder = started.enter_context(ray_folder(tell))
            started.enter_context(closed_ray())
            options = {**OPTIONS, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder}
        with endings_blocked():
            connect(address, **options)
        started.callback(ray.shutdown if address is not None else end_ray)
        if address is None:
            warn_if_open(tell)
        yield


def connect(address: str | None, **options: Any) -> None:
    """`ray.init` for the Ray at an address, or for a new one of this machine.

    Raises `FaultsError` with the last line of Ray's reason, and Ray's own error as its cause.
    """
    if address is not None and (faults := address_faults("--address", address)):
        raise FaultsError("Ray", faults)
    try:
        if address is not None:
            _knock(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        with loopback_kept():
            if address is None:
                _start(address="local", **quiet, **options)
            else:
                ray.init(address=address, **quiet, **options)
    except Exception as error:  # it raises whatever came in its way
        logger.debug("Ray did not start", exc_info=True)
        with contextlib.suppress(Exception):
            ray.shutdown()  # ends what it had started
        raise FaultsError("Ray", [_fault(address, error)]) from error


def _start(**options: Any) -> None:
    with started_patiently():
        try:
            with bare_ray():
                ray.init(**options)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # A version of Ray that is put together in another way starts with all it has.
            logger.debug("Ray did not start without what is of no use here: %s", error)
            ray.shutdown()
            ray.init(**options)


def _knock(address: str) -> None:
    """Raises `OSError` where nobody listens at a host and port, or where they want another token.

    Ray itself would go on trying for many minutes.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:  # else a word such as auto, which Ray looks up
        socket.create_connection((place.hostname, place.port), timeout=ANSWER_WITHIN_S).close()
        if _is_refused(place.netloc):
            raise PermissionError("it wants a token, and not the one it was given, if any")


def _is_refused(place: str) -> bool:
    """Whether a Ray says that it wants another token: by itself Ray's library would print that for twenty seconds."""
    try:
        from ray._private import grpc_utils  # here: what it needs comes with the extra `cluster`
    except ImportError:
        return False
    grpc: Any = vars(grpc_utils)["grpc"]
    with grpc_utils.init_grpc_channel(place) as channel:
        try:
            channel.unary_unary(_HARMLESS)(b"", timeout=ANSWER_WITHIN_S)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


def _fault(address: str | None, error: Exception) -> str:
    lines = masked(str(error)).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
    reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."
    whole = "ADAPTUNE_LOG=debug shows all that Ray says"
    if address is None:
        remedy = "free memory and room in /dev/shm and TMPDIR, or join a running Ray with --address"
        return f"Ray must start on this machine, but it does not ({reason}); {remedy}; {whole}"
    remedy = "see that it runs there, with the versions of Ray and Python that are installed here, and give its token"
    remedy += " by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, if it wants one"
    return f"--address must be that of a running Ray, but {address} cannot be joined ({reason}); {remedy}; {whole}"
