"""Which sockets a process and its descendants listen on, read from /proc (Linux)."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listening TCP socket and one of the processes that have it open."""

    command: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    @property
    def is_loopback(self) -> bool:
        mapped = getattr(self.address, "ipv4_mapped", None)  # ::ffff:127.0.0.1 is 127.0.0.1
        return (mapped or self.address).is_loopback


def listeners(root: int) -> list[Listener]:
    """Those of process `root` and of all that it started, directly or not."""
    found, there = set(), _listening_sockets()
    for pid in with_descendants(root):
        try:
            opened = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it has ended
            continue
        for link in opened:
            if (place := there.get(link)) is not None:
                found.add(Listener(command=command, address=place[0], port=place[1]))
    return sorted(found, key=lambda listener: (listener.command, listener.port))


def _listening_sockets() -> dict[str, tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """Address and port by what /proc/PID/fd calls the socket."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state != LISTEN:
                continue
            digits, _, port = local.partition(":")
            # The kernel prints words of 32 bits, each as the machine stores it.
            words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
            raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
            found[f"socket:[{rest[5]}]"] = (ipaddress.ip_address(raw), int(port, 16))
    return found


def with_descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(after_name[1]), []).append(int(folder.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found
