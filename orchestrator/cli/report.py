"""`adaptune report`: the page, the figures and the tables of a store, without torch and without Ray."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from pathlib import Path
from time import monotonic, sleep

from orchestrator.analysis.results import Results
from orchestrator.analysis.text import tables, wording
from orchestrator.cli.screen import console
from orchestrator.run.sweep import results_of, write_report_into
from orchestrator.store import SILENCE_S, Store

_LEAST_WAIT_S = 15.0  # between two reports of a running sweep
_WRITING_SHARE = 0.05  # of the time, at most, goes into writing them


def make_report(store: str, *, sweep: str | None, as_json: bool, open_page: bool, watch: bool) -> int:
    """Write the report of whatever is recorded so far, of all sweeps that share the store or of one.

    With `open_page` the reader's browser is asked to show it. With `watch` it is written again, while a driver is at
    work on the store, whenever trials have ended since.
    """
    seen, took = _write(store, sweep=sweep, as_json=as_json, brief=False, open_page=open_page)
    while watch and _is_running(store):
        sleep(max(_LEAST_WAIT_S, took * (1 / _WRITING_SHARE - 1)))
        if _recorded(store) != seen:
            seen, took = _write(store, sweep=sweep, as_json=as_json, brief=True, open_page=False)
    if watch and _recorded(store) != seen:  # those that ended between the last look and the driver's end
        _write(store, sweep=sweep, as_json=as_json, brief=True, open_page=False)
    return 0


def _write(store: str, *, sweep: str | None, as_json: bool, brief: bool, open_page: bool) -> tuple[int, float]:
    """Write the report and say so; returns how many trials were recorded, and the seconds it took."""
    began, seen = monotonic(), _recorded(store)
    opened = Store(store)
    results = results_of(opened, sweep)
    files = write_report_into(opened, results, sweep=sweep)
    took = monotonic() - began
    page = next(file for file in files if file.endswith("/report.html"))
    _say(opened, results, files, page=page, as_json=as_json, brief=brief)
    if open_page and not _open(page) and not as_json:
        console().print(f"No browser can be opened here. The page is {page}", soft_wrap=True)
    return seen, took


def _say(store: Store, results: Results, files: tuple[str, ...], *, page: str, as_json: bool, brief: bool) -> None:
    if as_json:
        counts = {status.value: number for status, number in results.counts().items()}
        print(json.dumps({"store": store.uri, "counts": counts, "report": list(files)}), flush=True)
        return
    screen = console()
    if brief:
        screen.print(f"{wording.status_line(results.counts())} {page}", soft_wrap=True)
        return
    screen.print(tables.summary(results))
    screen.print()
    for file in files:
        screen.print(file, soft_wrap=True)


def _recorded(store: str) -> int:
    return len(Store(store).statuses())


def _is_running(store: str) -> bool:
    """Whether a driver is at work on the store, and has been heard of lately."""
    opened = Store(store)
    if opened.holder() is None:
        return False
    silent_s = opened.silent_s()
    return silent_s is None or silent_s <= SILENCE_S


def _open(page: str) -> bool:
    """Ask the reader's browser to show a local file; False where there is none to ask.

    On a machine without a display the browsers that are found run in the terminal and would take it over, so there
    none is asked unless BROWSER names one.
    """
    if "://" in page and not page.startswith("file://"):
        return False
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if sys.platform.startswith("linux") and not has_display:
        return False
    address = page if page.startswith("file://") else Path(page).absolute().as_uri()
    try:
        return webbrowser.open(address)
    except (OSError, webbrowser.Error):
        return False
