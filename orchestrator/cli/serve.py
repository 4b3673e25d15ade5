"""`adaptune serve`: saved adapters, or the winners that a sweep has kept, over HTTP."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.results import Results
from orchestrator.analysis.text import wording
from orchestrator.cli.export import choose
from orchestrator.cli.screen import console
from orchestrator.record import TrialStatus
from orchestrator.run.sweep import results_of
from orchestrator.store import Store
from trainables import metrics
from trainables.data.paths import existing_path, expanded_path
from trainables.faults import FaultsError, unknown_name
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
        kept, left_out = ({}, []) if store is None else _kept(Store(store), Path(scratch), method, taken=folders)
        first = list(folders.values()) or [winner.folder for winners in kept.values() for winner in winners]
        bank = _bank(backbone, first, device)
        fill_bank(bank, folders)
        screen = console(stderr=True)
        told, unfit = _fill_with_winners(bank, kept)
        for sentence in [*told, *(f"Not served: {each}" for each in (*left_out, *unfit))]:
            screen.print(sentence, soft_wrap=True)

        def ready(url: str) -> None:
            screen.print(f"Serving {', '.join(bank.adapters)} at {url}. Stop with Ctrl-C.", soft_wrap=True)

        serve(bank, listening, token=token, ready=ready)
    return 0


def _folders(given: Sequence[str], faults: list[str]) -> dict[str, Path]:
    """Saved adapters by name: each folder given, or the folders in it that are one.

    `NAME=FOLDER` names one, unless a folder is called just so.
    """
    found: list[tuple[str, Path]] = []
    for text in given:
        name, equals, rest = text.partition("=")
        if existing_path(text) is not None:  # a folder may have the sign in its name, as runs/lr=3e-4 has
            equals, rest = "", text
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


def _kept(
    store: Store, scratch: Path, method: str | None, *, taken: Mapping[str, Path]
) -> tuple[dict[str, list[_Winner]], list[str]]:
    """Of each task of a store the recommended trial, and after it the other methods' best, the best first.

    With a method that method's alone. A task is in it that has kept weights of one at least; the others are told of, a
    sentence each. Raises `FaultsError` where there is no task to serve, or one has the name of an adapter.
    """
    results: Results = results_of(store)
    rows = [row for row in results.trials().to_pylist() if row["task"] is not None]
    completed = [row for row in rows if row["status"] == TrialStatus.COMPLETED.value]
    able = {row["task"] for row in completed if method in (None, row["method"])}
    if not able and method is not None and method not in (known := {row["method"] for row in completed}):
        raise FaultsError("serve", [f"--method: {unknown_name('method with a completed trial', method, known)}"])
    found: dict[str, list[_Winner]] = {}
    left_out, faults = [], []
    for task in sorted({row["task"] for row in rows} | _untrained(store, {row["trial_id"] for row in rows})):
        if task not in able:
            left_out.append(_why_none(store, rows, task, method))
            continue
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
            command = shlex.join(["adaptune", "export", store.uri, "--task", task, "--out", "FOLDER"])
            remedy = f"`{command}` makes some for --adapters FOLDER"
            left_out.append(f"no weights are kept of the recommended trial of {task}; {remedy}")
        elif task in taken:
            faults.append(f"--store: its task {task} must not have the name of an adapter that is given")
        else:
            found[task] = winners
    if not found and not faults:
        faults = [f"--store: {each}" for each in left_out]
        faults = faults or ["--store: there must be a completed trial to serve, but the store holds none"]
    if faults:
        raise FaultsError("serve", faults)
    return found, left_out


def _untrained(store: Store, recorded: set[str]) -> set[str]:
    """The tasks of a store that are planned and have no record yet."""
    plan = store.plan_table()
    if "task" not in plan.column_names:  # an old one
        return set()
    planned = list(zip(plan["task"].to_pylist(), plan["trial_id"].to_pylist(), strict=True))
    return {task for task, _ in planned if task} - {task for task, trial_id in planned if trial_id in recorded}


def _why_none(store: Store, rows: Sequence[Mapping[str, Any]], task: str, method: str | None) -> str:
    """Why a task has no trial to serve, and what would give it one."""
    own = [row for row in rows if row["task"] == task]
    others = sorted({row["method"] for row in own if row["status"] == TrialStatus.COMPLETED.value})
    if method is not None and others:
        return f"no trial of {method} has completed on {task}; without --method, {', '.join(others)} can answer"
    failed = sum(row["status"] == TrialStatus.FAILED.value for row in own)
    came = f" ({wording.plural(failed, 'trial')} failed)" if failed else ""
    return f"no trial has completed on {task}{came}; `{shlex.join(['adaptune', 'resume', store.uri])}` goes on with it"


def _methods(results: Results, task: str) -> list[str]:
    """The methods of a task, the one with the best validation score first."""
    rows = [row for row in results.best().to_pylist() if row["task"] == task]
    is_higher_better = all(metrics.get(row["metric"]).mode == "max" for row in rows)
    rows.sort(key=lambda row: row["validation_mean"], reverse=is_higher_better)
    return list(dict.fromkeys(row["method"] for row in rows))


def _fill_with_winners(bank: AdapterBank, kept: Mapping[str, Sequence[_Winner]]) -> tuple[list[str], list[str]]:
    """Put the first winner of each task that can be served with others into the bank.

    Says where that is not the first, and of which tasks none can be. Raises `FaultsError` where that is so of all.
    """
    told, unfit = [], []
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
            unfit += [f"{task}: {refusal}" for refusal in dict.fromkeys(refusals)]
    if kept and not kept.keys() & bank.adapters.keys():
        raise FaultsError("adapters", unfit)
    return told, unfit


def _bank(backbone: str | None, folders: Sequence[Path], device: str | None) -> AdapterBank:
    """An empty bank over the backbone that is named, or that of the first adapter.

    Raises `FaultsError` where none is named and none of the adapters can be read.
    """
    from trainables.device.hardware import device_named
    from trainables.inference.bank import AdapterBank
    from trainables.inference.saved_adapter import backbone_of

    place = str(device_named(device))
    for folder in folders[:-1]:
        if not backbone:
            with contextlib.suppress(FaultsError):  # of a faulty one, which is said when it is to be served
                backbone = backbone_of(folder)
    return AdapterBank(backbone or backbone_of(folders[-1]), device=place)
