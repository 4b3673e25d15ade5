"""Several hosts on one machine: network namespaces on a bridge, each with an address and a host name of its own.

Linux, as root. What one host reaches of another goes over the network and nothing else but the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NETWORK = "10.77.{}.{}"


def can_be_had() -> bool:
    """Whether this machine and this user can make hosts."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("unshare") is not None


class Network:
    """A bridge and the hosts on it. `number` (0 to 255) tells it from others of this machine."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._bridge = f"adaptune{number}"
        self.hosts: list[Host] = []
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")

    def host(self, name: str) -> Host:
        self.hosts.append(Host(self._bridge, self.number, len(self.hosts) + 1, name))
        return self.hosts[-1]

    def close(self) -> None:
        """End whatever runs on the hosts, and take all away."""
        for host in self.hosts:
            host.kill()
            host.close()
        _ip("link", "del", self._bridge)


class Host:
    """One of them."""

    def __init__(self, bridge: str, network: int, number: int, name: str) -> None:
        self.name = name
        self.address = NETWORK.format(network, number)
        self._space = f"{bridge}-{name}"
        inside, outside = f"a{network}i{number}", f"a{network}o{number}"
        _ip("netns", "add", self._space)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self._space)
        _ip("link", "set", outside, "master", bridge, "up")
        _ip("-n", self._space, "addr", "add", f"{self.address}/24", "dev", inside)
        for device in (inside, "lo"):
            _ip("-n", self._space, "link", "set", device, "up")

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program here, and do not wait for it."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self._inside(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def run(self, command: Sequence[str], environment: Mapping[str, str], **options: Any) -> tuple[int, str]:
        """Run a program here to its end; its exit status, and what it said."""
        done = subprocess.run(
            self._inside(command), env=environment, capture_output=True, text=True, check=False, **options
        )
        return done.returncode, done.stdout + done.stderr

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End all that runs here at once, as when the machine loses its power."""
        listed = subprocess.run(["ip", "netns", "pids", self._space], capture_output=True, text=True, check=False)
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)

    def close(self) -> None:
        _ip("netns", "del", self._space)

    def _inside(self, command: Sequence[str]) -> list[str]:
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        return ["ip", "netns", "exec", self._space, "unshare", "--uts", *named]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
