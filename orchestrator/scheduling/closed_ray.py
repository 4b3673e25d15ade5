"""A Ray of this machine that nobody else can use: on the loopback interface alone, and behind a token of its own.

Whoever may speak to a Ray can run code as the user who started it. By itself Ray listens on every interface, with a
token that it writes to the home folder once and never changes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import services as ray_services
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TOKEN_BYTES = 32
# Until a node of Ray that is being started has told of itself.
NODE_START_S = 300.0
# Ray's metrics are served to whoever asks, without a token, and nobody reads those of a Ray that ends with its sweep:
# neither those of the node, nor those of two of Ray's processes, which serve none where their port is no port.
NO_METRICS = {"AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
OPTIONS = {"include_dashboard": False, "_system_config": {"enable_metrics_collection": False}}


@contextmanager
def closed_ray() -> Iterator[None]:
    """While it lasts, a Ray that is started with `OPTIONS` demands a token, which this process has.

    The token is fresh, stands in the environment of Ray's processes and in no file, and is forgotten at the end. What
    the environment says of Ray's authentication is put aside until then: it is about other clusters.
    """
    before = {name: os.environ.pop(name, None) for name in (MODE, TOKEN, TOKEN_FILE, *NO_METRICS)}
    os.environ.update({MODE: "token", TOKEN: secrets.token_hex(TOKEN_BYTES), **NO_METRICS})
    _read_anew()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _read_anew()


@contextmanager
def loopback_kept() -> Iterator[None]:
    """`ray.init` takes a loopback address for what it says, and one of its own where it starts Ray.

    By itself it looks for an outside address of this machine instead, whatever `_node_ip_address` says, since other
    machines might want to join. Ray has no option for it, but this constant, which is off on macOS and Windows.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def started_patiently() -> Iterator[None]:
    """Whoever starts a node of Ray meanwhile waits for it as long as `NODE_START_S`.

    By itself Ray gives a node 30 seconds, which on a machine that many others use is not enough, leaves it running when
    it gives it up, and has no option for it.
    """
    look = ray_services.get_node

    def look_again(*arguments: Any, **options: Any) -> Any:
        ends = time.monotonic() + NODE_START_S
        while True:
            try:
                return look(*arguments, **options)
            except RuntimeError:  # it is not known yet
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)

    ray_services.get_node = look_again
    try:
        yield
    finally:
        ray_services.get_node = look


@contextmanager
def ray_told_to_the_log() -> Iterator[None]:
    """What Ray would print of processes that died and calls it tries again is logged at the level debug instead.

    All of that is foreseen; the sweep's own display says what a user should know of it.
    """

    def log(data: dict[str, Any], ignore_prefix: bool) -> None:
        logger.debug("Ray: %s", "\n".join(data["lines"]))

    before, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, log
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


def warn_if_open(tell: Callable[[str], None]) -> None:
    """Tell where the Ray that was started listens beyond loopback after all, as one of another version might."""
    address = ray.util.get_node_ip_address()
    if address not in ("127.0.0.1", "::1"):
        tell(
            f"Ray {ray.__version__} listens on {address}, not on loopback alone; others there need its token to use it."
        )


def end_ray() -> None:
    """End the Ray that this process started, and all of its processes, at once.

    By itself `ray.shutdown` sends each SIGTERM, which they are deaf to (`endings_blocked`), and waits a second for it.
    Nothing is lost: what a sweep keeps is in its store by then.
    """
    node = ray_worker._global_node
    if node is not None:
        node.kill_all_processes = functools.partial(_kill, node, node.kill_all_processes)
    ray.shutdown()


def _kill(node: Any, kill_all_processes: Callable[..., None], **options: Any) -> None:
    import psutil  # type: ignore[import-untyped]  # here: only the end of a Ray needs it

    started = [info.process for infos in node.all_processes.values() for info in infos]
    descendants = []
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants += psutil.Process(process.pid).children(recursive=True)
    kill_all_processes(check_alive=False, allow_graceful=False)
    for descendant in descendants:  # most end by themselves within seconds, and until then write into Ray's folder
        with contextlib.suppress(psutil.NoSuchProcess):
            descendant.kill()


def _read_anew() -> None:
    """Have Ray forget the mode and the token that it has read from the environment."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
