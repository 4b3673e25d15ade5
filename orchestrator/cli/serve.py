"""`adaptune serve`: saved adapters, or the winners that a sweep has kept, over HTTP."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.analysis.results import Results
from orchestrator.cli.export import choose
from orchestrator.cli.screen import console
from orchestrator.run.sweep import results_of
from orchestrator.store import Store
from trainables.faults import FaultsError
from trainables.inference.saved_names import CONFIG, write_files

if TYPE_CHECKING:
    from trainables.inference.bank import AdapterBank


def serve_adapters(
    adapters: Sequence[str],
    *,
    store: str | None,
    method: str | None,
    backbone: str | None,
    device: str | None,
    host: str,
    port: int,
    token_env: str | None,
) -> int:
    """Serve until SIGTERM or Ctrl-C. Raises `FaultsError` with everything that is wrong before anything is served."""
    # Here: the other commands need neither torch nor a server.
    from orchestrator.serving.server import access_faults, fill_bank, listen, serve

    faults = []
    token = None
    if token_env is not None:
        token = os.environ.get(token_env)
        if not token:
            faults.append(f"--token-env: the variable {token_env} must hold the token, but is not set")
    if not faults:
        faults += access_faults(host, token)
    folders = _folders(adapters, faults)
    if not adapters and store is None:
        faults.append("there must be --adapters DIR or --store STORE to serve, but there is neither")
    if faults:
        raise FaultsError("serve", faults)
    with listen(host, port) as listening, tempfile.TemporaryDirectory(prefix="adaptune-serve-") as scratch:
        if store is not None:
            folders |= _kept(Store(store), Path(scratch), method, taken=folders)
        bank = _bank(backbone, folders, device)
        fill_bank(bank, folders)
        screen = console(stderr=True)

        def ready(url: str) -> None:
            screen.print(f"Serving {', '.join(folders)} at {url}. Stop with Ctrl-C.", soft_wrap=True)

        serve(bank, listening, token=token, ready=ready)
    return 0


def _folders(given: Sequence[str], faults: list[str]) -> dict[str, Path]:
    """Saved adapters by name: each folder given, or the folders in it that are one. `NAME=FOLDER` names one."""
    found: list[tuple[str, Path]] = []
    for text in given:
        name, equals, rest = text.partition("=")
        folder = Path(rest if equals else text).expanduser()
        try:
            if (folder / CONFIG).is_file():
                found.append((name if equals else folder.resolve().name, folder))
                continue
            within = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        except OSError as error:
            faults.append(f"--adapters: {text} must be readable, but {error}")
            continue
        found += [(path.name, path) for path in within]
        if not within:
            faults.append(f"--adapters: must be a folder with an {CONFIG}, or a folder of such, but {text} is neither")
    counts = Counter(name for name, _ in found)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        faults.append(f"--adapters: each name must stand once, but {', '.join(twice)} do not; name them NAME=FOLDER")
    return dict(found)


def _kept(store: Store, scratch: Path, method: str | None, *, taken: dict[str, Path]) -> dict[str, Path]:
    """The recommended trial of each task of a store, by the task's name, as its sweep kept it."""
    results: Results = results_of(store)
    found: dict[str, Path] = {}
    faults = []
    for task in sorted({row for row in results.trials()["task"].to_pylist() if row is not None}):
        chosen = choose("serve", results, task=task, trial=None, method=method)
        files = store.weights(chosen["trial_id"], chosen["started_at"])
        if files is None:
            remedy = f"`adaptune export {store.uri} --task {task} --out FOLDER` makes some for --adapters FOLDER"
            faults.append(f"--store: no weights are kept of the recommended trial of {task}; {remedy}")
        elif task in taken:
            faults.append(f"--store: its task {task} must not have the name of an adapter that is given")
        else:
            found[task] = scratch / f"{len(found)}"
            write_files(found[task], files)
    if not found and not faults:
        faults.append("--store: there must be a completed trial to serve, but the store holds none")
    if faults:
        raise FaultsError("serve", faults)
    return found


def _bank(backbone: str | None, folders: dict[str, Path], device: str | None) -> AdapterBank:
    """An empty bank over the backbone that is named, or that of the first adapter."""
    from trainables.device.hardware import device_named
    from trainables.inference.bank import AdapterBank
    from trainables.inference.saved_adapter import backbone_of

    place = str(device_named(device))
    return AdapterBank(backbone or backbone_of(next(iter(folders.values()))), device=place)
