"""`adaptune paper`: what a paper takes from a sweep, from the store alone, without torch and without Ray."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.analysis.text import wording
from orchestrator.analysis.text.visible import visible
from orchestrator.cli.screen import console
from orchestrator.run.sweep import results_of
from orchestrator.store import Store
from orchestrator.store.files import Folder
from trainables.data.paths import given_path
from trainables.faults import FaultsError


def make_paper(store: str, *, sweep: str | None, out: str | None, as_json: bool) -> int:
    """Write the files of whatever is recorded so far, of all sweeps that share the store or of one."""
    opened = Store(store)
    results = results_of(opened, sweep)
    files = (
        _into_store(opened, results.paper)
        if out is None
        else [str(path) for path in results.paper(given_path("paper", "--out", out))]
    )
    if as_json:
        print(json.dumps({"store": opened.uri, "paper": files}))
        return 0
    screen = console()
    for file in files:
        screen.print(visible(file), soft_wrap=True, markup=False, highlight=False)
    screen.print(wording.plural(len(files), "file"))
    return 0


def _into_store(store: Store, write: Callable[[Path], list[Path]]) -> list[str]:
    """By way of a local folder, since a store may be elsewhere; each file in one step."""
    with tempfile.TemporaryDirectory(prefix="adaptune-paper-") as scratch:
        files = {path.relative_to(scratch).as_posix(): path for path in write(Path(scratch))}
        target = Folder(store.filesystem, f"{store.path}/paper")
        try:
            for name, path in files.items():
                target.write(name, path.read_bytes())
        except OSError as error:
            raise FaultsError("paper", [f"STORE/paper must be a folder that can be written, but {error}"]) from error
    return [f"{store.uri.rstrip('/')}/paper/{name}" for name in files]
