"""`adaptune status`: an answer from the store alone, without torch and without Ray."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from orchestrator.analysis.text import tables, wording
from orchestrator.cli.screen import console
from orchestrator.run.sweep import results_of
from orchestrator.store import SILENCE_S, EngineSnapshot, Holder, Store


def show_status(store: str, *, sweep: str | None, as_json: bool) -> int:
    """How many trials have which status, who is at work and how fast, and the best so far.

    Of all sweeps that share the store, or of one.
    """
    opened = Store(store)
    results = results_of(opened, sweep)
    sweeps, holder, working = opened.sweeps(), opened.holder(), opened.engine_snapshot()
    silent_s = None if holder is None else opened.silent_s()
    throughput, shares = results.throughput(), results.node_shares()
    counts = results.counts()
    if as_json:
        answer = {
            "sweep": sweep or sweeps[0],
            "sweeps": list(sweeps),
            "store": opened.uri,
            "counts": {status.value: number for status, number in counts.items()},
            "planned_trials": opened.plan_table(sweep).num_rows + opened.unproposed(sweep),
            "running": None if holder is None else _driver(holder, silent_s),
            "engines": None if working is None else _engines(working),
            "throughput": throughput.to_pylist(),
            "nodes": shares.to_pylist(),
            "best": results.best(results.method_columns()).to_pylist(),
        }
        print(json.dumps(answer))
        return 0
    screen = console()
    screen.print("No sweep is running on this store." if holder is None else _driver_line(holder, silent_s))
    if working is not None:
        screen.print(f"Engines, as of {wording.duration(working.age_s)} ago:")
        for engine in working.engines:
            screen.print(f"  {wording.engine(engine)}", soft_wrap=True)
    if len(sweeps) > 1 and sweep is None:
        last, *others = sweeps
        screen.print(f"Sweeps that share this store: {last}, which was run last, {', '.join(others)}.", soft_wrap=True)
    screen.print(tables.summary(results))
    if len(throughput):
        screen.print()
        screen.print(tables.to_rich(tables.throughput_table(throughput, results.backbone_names())))
    if len(shares) > 1:
        screen.print()
        screen.print(tables.to_rich(tables.node_shares_table(shares)))
    return 0


def _driver_line(holder: Holder, silent_s: float | None) -> str:
    line = f"Running since {holder.started_at} on {holder.host}, process {holder.pid}"
    if silent_s is None or holder.beat_every_s is None:
        return f"{line}."
    heard = f"heard of {wording.duration(silent_s)} ago"
    if silent_s > SILENCE_S:
        return f"{line}, but last {heard}: a new driver may take its place."
    return f"{line}, last {heard}."


def _driver(holder: Holder, silent_s: float | None) -> dict[str, Any]:
    heard = None if silent_s is None or holder.beat_every_s is None else round(silent_s, 1)
    return {"host": holder.host, "pid": holder.pid, "started_at": holder.started_at, "heard_s_ago": heard}


def _engines(working: EngineSnapshot) -> dict[str, Any]:
    return {
        "written_at": working.written_at,
        "age_s": round(working.age_s, 1),
        "engines": [asdict(engine) for engine in working.engines],
    }
