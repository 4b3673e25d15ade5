"""`adaptune doctor`: what this machine has, and what would stop a sweep on it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from rich.table import Table
from rich.text import Text

from orchestrator.cli.screen import console
from orchestrator.secrets import masked
from trainables.cache import cache_folder
from trainables.device import container
from trainables.faults import FaultsError

PACKAGES = ("adaptune", "ray", "torch", "transformers", "datasets", "optuna", "mlflow", "pyarrow")
ENOUGH_MEMORY, ENOUGH_DISK = 2 * 2**30, 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at; `ok` is False where it would stop a sweep."""

    what: str
    found: str
    ok: bool = True


def examine(*, address: str | None, tracking_uri: str | None, as_json: bool) -> int:
    """Look at everything a sweep needs; exit status 1 where something would stop it."""
    findings = [
        *_packages(),
        *_guarded("devices", _devices),
        *_guarded("backbones", _backbones),
        *_guarded("memory", _memory),
        *_guarded("store", lambda: [_writable("store", Path("sweeps"))]),
        *_guarded("cache", lambda: [_writable("cache", cache_folder())]),
        *_guarded("tracking", lambda: [_tracking(tracking_uri)]),
        *_guarded("cluster", lambda: [_cluster(address)]),
    ]
    findings = [replace(finding, found=masked(finding.found)) for finding in findings]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in findings:
            table.add_row("ok" if finding.ok else Text("stops", "red"), finding.what, finding.found)
        console().print(table)
    return 0 if all(finding.ok for finding in findings) else 1


def _guarded(what: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """A check that breaks is a finding too, never a traceback."""
    try:
        return look()
    except FaultsError as error:
        return [Finding(what=what, found="; ".join(error.faults), ok=False)]
    except Exception as error:
        return [Finding(what=what, found=f"{type(error).__name__}: {error}", ok=False)]


def _packages() -> list[Finding]:
    findings = [Finding(what="python", found=platform.python_version())]
    for name in PACKAGES:
        try:
            findings.append(Finding(what=name, found=importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(what=name, found="not installed", ok=False))
    return findings


def _devices() -> list[Finding]:
    from trainables.device.hardware import describe_devices

    return [Finding(what="device", found=found) for found in describe_devices()]


def _backbones() -> list[Finding]:
    from trainables.backbones.loading import describe_backbone
    from trainables.packaged import PACKAGED

    findings = []
    for name in PACKAGED:
        try:
            shape = describe_backbone(name).shape
            found = f"{shape.num_layers} layers, hidden size {shape.hidden_size}"
        except FaultsError as error:  # a sweep may use another backbone, so this stops none
            found = "; ".join(error.faults)
        findings.append(Finding(what=f"backbone {name}", found=found))
    return findings


def _memory() -> list[Finding]:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # counts what the page cache would give back
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    if (left := container.free_memory()) is not None:
        available = min(available, left)
    disk = shutil.disk_usage(Path.cwd()).free
    return [
        Finding(what="free memory", found=f"{available / 2**30:.1f} GiB", ok=available >= ENOUGH_MEMORY),
        Finding(what="free disk", found=f"{disk / 2**30:.1f} GiB in {Path.cwd()}", ok=disk >= ENOUGH_DISK),
    ]


def _writable(what: str, folder: Path) -> Finding:
    """Whether a folder, or the nearest one above it that exists, takes a file. Leaves nothing behind."""
    present = folder.absolute()
    while not present.exists():
        present = present.parent
    try:
        with tempfile.NamedTemporaryFile(dir=present):
            return Finding(what=what, found=f"{folder} can be written")
    except OSError as error:
        return Finding(what=what, found=f"{folder} cannot be written: {error.strerror}", ok=False)


def _tracking(tracking_uri: str | None) -> Finding:
    from orchestrator.tracking import given_tracking_uri

    uri = given_tracking_uri(tracking_uri)
    if not uri.startswith(("http://", "https://")):
        return Finding(what="tracking", found=uri)
    scheme, _, rest = uri.partition("://")
    place = rest.partition("/")
    # Whether it is well it tells everybody; a name and a password, which the environment may have there, are not asked.
    health = f"{scheme}://{place[0].rpartition('@')[2]}/{place[2]}".rstrip("/") + "/health"
    try:
        with urlopen(health, timeout=5) as answer:
            return Finding(what="tracking", found=f"{uri} answers {answer.status}")
    except (OSError, HTTPException, ValueError) as error:  # refusals, silence, and whatever is no server of MLflow's
        # MLflow is a window: a sweep runs without it and fills it later.
        return Finding(
            what="tracking", found=f"{uri} does not answer ({error}); a sweep runs anyway and fills MLflow later"
        )


def _cluster(address: str | None) -> Finding:
    if address is None:
        from orchestrator.scheduling.ray_folder import ray_folder

        told = ["no --address given: a sweep starts Ray on this machine"]
        with ray_folder(told.append):
            return Finding(what="cluster", found="; ".join(told))
    from orchestrator.scheduling.cluster import describe_cluster

    return Finding(what="cluster", found=describe_cluster(address))
