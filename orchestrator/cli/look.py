"""`adaptune status` and `adaptune report`: answers from the store alone, without torch and without Ray."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from orchestrator.analysis import tables, wording
from orchestrator.cli.screen import console
from orchestrator.store import Store, Working
from orchestrator.sweep import load_results, write_report_into


def show_status(store: str, *, as_json: bool) -> int:
    """How many trials have which status, who is at work and how fast, and the best so far."""
    opened = Store(store)
    results = load_results(store)
    holder, working = opened.holder(), opened.working()
    throughput = results.throughput()
    if as_json:
        answer = {
            "sweep": json.loads(opened.spec_json())["name"],
            "store": opened.uri,
            "counts": {status.value: number for status, number in results.counts().items()},
            "planned_trials": opened.plan_table().num_rows,
            "running": None if holder is None else {"host": holder.host, "pid": holder.pid},
            "engines": None if working is None else _engines(working),
            "throughput": throughput.to_pylist(),
            "best": results.best().to_pylist(),
        }
        print(json.dumps(answer))
        return 0
    screen = console()
    if holder is None:
        screen.print("No driver is at work on this store.")
    else:
        screen.print(f"Running since {holder.started_at} on {holder.host}, process {holder.pid}.")
    if working is not None:
        screen.print(f"Engines, as of {wording.duration(working.age_s)} ago:")
        for engine in working.engines:
            screen.print(f"  {wording.engine(engine)}", soft_wrap=True)
    screen.print(tables.summary(results))
    if len(throughput):
        screen.print()
        screen.print(tables.to_rich(tables.throughput_table(throughput)))
    return 0


def _engines(working: Working) -> dict[str, Any]:
    return {
        "written_at": working.written_at,
        "age_s": round(working.age_s, 1),
        "engines": [asdict(engine) for engine in working.engines],
    }


def make_report(store: str, *, as_json: bool) -> int:
    """Write the report of whatever is recorded so far."""
    opened = Store(store)
    results = load_results(store)
    files = write_report_into(opened, results)
    if as_json:
        counts = {status.value: number for status, number in results.counts().items()}
        print(json.dumps({"store": opened.uri, "counts": counts, "report": list(files)}))
        return 0
    screen = console()
    screen.print(tables.summary(results))
    screen.print()
    for file in files:
        screen.print(file, soft_wrap=True)
    return 0
