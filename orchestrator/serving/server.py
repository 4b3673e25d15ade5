"""A server from its address to its end."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from orchestrator.serving.application import Limits, make_application
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.inference.bank import AdapterBank

SHORTEST_TOKEN = 16
# What is under way when the end comes has so long to be answered.
GRACE_S = 30
# Connections at a time; more are told that the server is busy.
MOST_CONNECTIONS = 1024


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach such an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def access_faults(host: str, token: str | None) -> list[str]:
    """Why a server may not be opened at an address with this token."""
    if token is not None and len(token) < SHORTEST_TOKEN:
        return [f"--token-env: the token must have at least {SHORTEST_TOKEN} characters, but has {len(token)}"]
    if token is None and not is_loopback(host):
        rule = "an address that others reach must be guarded by a token"
        return [f"--host: {rule}, but {host} is one and there is none; name a variable that holds it with --token-env"]
    return []


def fill_bank(bank: AdapterBank, folders: Mapping[str, Path]) -> None:
    """Load adapters by name. Raises one `FaultsError` with the faults of all of them."""
    faults = []
    for name, folder in folders.items():
        try:
            bank.add(name, folder)
        except FaultsError as error:
            faults += [f"{folder}: {fault}" for fault in error.faults]
    if faults:
        raise FaultsError("adapters", faults)


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 is a free one. Raises `FaultsError` where it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise FaultsError("serve", [f"--host, --port: {host}:{port} must be free to listen at, but {error}"]) from None


def serve(
    bank: AdapterBank,
    listening: socket.socket,
    *,
    token: str | None,
    limits: Limits | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer until SIGTERM or Ctrl-C, and then what is under way. `ready` hears of the URL."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    hosts: Sequence[str] | None = ["127.0.0.1", "localhost", "::1", host] if is_loopback(host) else None
    application = make_application(bank, token=token, hosts=hosts, limits=limits)
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
        server_header=False,
    )
    server = uvicorn.Server(config)

    def end(number: int, frame: FrameType | None) -> None:
        """Before uvicorn takes signals itself; afterwards it raises them again, which says nothing new."""
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ready(f"http://{shown}:{port}")
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
