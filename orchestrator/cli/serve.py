"""`adaptune serve`: saved adapters, or the winners that a sweep has kept, over HTTP."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.analysis.results import Results
from orchestrator.cli.export import choose
from orchestrator.cli.screen import console
from orchestrator.run.sweep import results_of
from orchestrator.store import Store
from trainables import metrics
from trainables.data.paths import expanded_path
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
        faults.append("there must be --adapters FOLDER or --store STORE to serve, but there is neither")
    if method is not None and store is None:
        faults.append("--method: chooses among the trials of a store, so it needs --store")
    if faults:
        raise FaultsError("serve", faults)
    with listen(host, port) as listening, tempfile.TemporaryDirectory(prefix="adaptune-serve-") as scratch:
        kept = {} if store is None else _kept(Store(store), Path(scratch), method, taken=folders)
        bank = _bank(backbone, folders or {task: winners[0].folder for task, winners in kept.items()}, device)
        fill_bank(bank, folders)
        screen = console(stderr=True)
        for sentence in _fill_with_winners(bank, kept):
            screen.print(sentence, soft_wrap=True)

        def ready(url: str) -> None:
            screen.print(f"Serving {', '.join(bank.adapters)} at {url}. Stop with Ctrl-C.", soft_wrap=True)

        serve(bank, listening, token=token, ready=ready)
    return 0


def _folders(given: Sequence[str], faults: list[str]) -> dict[str, Path]:
    """Saved adapters by name: each folder given, or the folders in it that are one. `NAME=FOLDER` names one."""
    found: list[tuple[str, Path]] = []
    for text in given:
        name, equals, rest = text.partition("=")
        try:
            folder = expanded_path(rest if equals else text)
            if (folder / CONFIG).is_file():
                found.append((name if equals else folder.resolve().name, folder))
                continue
            within = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        except (OSError, RuntimeError) as error:
            faults.append(f"--adapters: {text} must be readable, but {error}")
            continue
        except ValueError as error:
            faults.append(f"--adapters: {error}")
            continue
        found += [(path.name, path) for path in within]
        if not within:
            faults.append(f"--adapters: must be a folder with an {CONFIG}, or a folder of such, but {text} is neither")
    counts = Counter(name for name, _ in found)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        faults.append(f"--adapters: each name must stand once, but {', '.join(twice)} do not; name them NAME=FOLDER")
    return dict(found)


@dataclass(frozen=True)
class _Winner:
    """A trial of a task whose weights a sweep has kept."""

    method: str
    validation_score: float
    folder: Path


def _kept(store: Store, scratch: Path, method: str | None, *, taken: Mapping[str, Path]) -> dict[str, list[_Winner]]:
    """Of each task of a store the recommended trial, and after it the other methods' best, the best first.

    With a method that method's alone. A task is in it that has kept weights of one at least.
    """
    results: Results = results_of(store)
    found: dict[str, list[_Winner]] = {}
    faults = []
    for task in sorted({row for row in results.trials()["task"].to_pylist() if row is not None}):
        trials = [choose("serve", results, task=task, trial=None, method=method)]
        if method is None:
            trials += [choose("serve", results, task=task, trial=None, method=each) for each in _methods(results, task)]
        winners: list[_Winner] = []
        for chosen in {trial["trial_id"]: trial for trial in trials}.values():
            files = store.weights(chosen["trial_id"], chosen["started_at"])
            if files is not None:
                folder = scratch / chosen["trial_id"]
                write_files(folder, files)
                winners.append(_Winner(chosen["method"], chosen["validation_score"], folder))
        if not winners:
            remedy = f"`adaptune export {store.uri} --task {task} --out FOLDER` makes some for --adapters FOLDER"
            faults.append(f"--store: no weights are kept of the recommended trial of {task}; {remedy}")
        elif task in taken:
            faults.append(f"--store: its task {task} must not have the name of an adapter that is given")
        else:
            found[task] = winners
    if not found and not faults:
        faults.append("--store: there must be a completed trial to serve, but the store holds none")
    if faults:
        raise FaultsError("serve", faults)
    return found


def _methods(results: Results, task: str) -> list[str]:
    """The methods of a task, the one with the best validation score first."""
    rows = [row for row in results.best().to_pylist() if row["task"] == task]
    is_higher_better = all(metrics.get(row["metric"]).mode == "max" for row in rows)
    rows.sort(key=lambda row: row["validation_mean"], reverse=is_higher_better)
    return list(dict.fromkeys(row["method"] for row in rows))


def _fill_with_winners(bank: AdapterBank, kept: Mapping[str, Sequence[_Winner]]) -> list[str]:
    """Put the first winner of each task that can be served with others into the bank; says where that is not the first.

    Raises `FaultsError` where a task has none.
    """
    told, faults = [], []
    for task, winners in kept.items():
        refusals: list[str] = []
        for winner in winners:
            try:
                bank.add(task, winner.folder)
            except FaultsError as error:
                refusals += error.faults
                continue
            if refusals:
                first = winners[0]
                told.append(
                    f"{task}: {winner.method} (validation {winner.validation_score:.3f}) answers in the place of "
                    f"{first.method} ({first.validation_score:.3f}), which is recommended: {refusals[0]}"
                )
            break
        else:
            faults += [f"{task}: {refusal}" for refusal in refusals]
    if faults:
        raise FaultsError("adapters", faults)
    return told


def _bank(backbone: str | None, folders: dict[str, Path], device: str | None) -> AdapterBank:
    """An empty bank over the backbone that is named, or that of the first adapter."""
    from trainables.device.hardware import device_named
    from trainables.inference.bank import AdapterBank
    from trainables.inference.saved_adapter import backbone_of

    place = str(device_named(device))
    return AdapterBank(backbone or backbone_of(next(iter(folders.values()))), device=place)
