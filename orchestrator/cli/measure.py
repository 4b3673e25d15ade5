"""`adaptune measure`: what the models of a sweep cost when they answer, on this machine."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from rich.console import Console

from orchestrator.analysis.results import Results
from orchestrator.analysis.text import cost_tables, tables
from orchestrator.cli.screen import console
from orchestrator.record import TrialStatus
from orchestrator.run.sweep import results_of
from orchestrator.store import Store
from trainables.config import TrialConfig
from trainables.faults import FaultsError


def measure_costs(store: str, *, length: int | None, num_threads: int | None, device: str | None, as_json: bool) -> int:
    """Measure every kind of model that a store has completed trials of, keep the answer and show it."""
    # Here: of the commands that read a store, few compute.
    from trainables.estimate.inference_cost import LENGTH, InferenceCosts, measure_inference

    opened, screen = Store(store), console(stderr=as_json)
    results = results_of(opened)
    configs = _completed(opened, results)
    if not configs:
        raise FaultsError(
            "measure", ["there must be a completed trial whose cost to measure, but the store holds none"]
        )
    found: InferenceCosts = measure_inference(
        list(configs.values()),
        length=LENGTH if length is None else length,
        device=device,
        num_threads=num_threads,
        note=lambda line: screen.print(f"measuring {line}"),
    )
    for fault in found.faults:
        screen.print(f"not measured: {fault}")
    if not found.costs:
        raise FaultsError("measure", found.faults)
    table = _table(found, list(configs), _sizes(results))
    opened.write_inference_costs(table)
    place = f"{opened.uri.rstrip('/')}/inference_costs.parquet"
    if as_json:
        print(json.dumps({"file": place, "faults": list(found.faults), "costs": table.to_pylist()}))
        return 0
    _show(screen, results_of(opened))
    screen.print(place, soft_wrap=True)
    return 0


def _completed(opened: Store, results: Results) -> dict[str, TrialConfig]:
    """The configurations with a completed trial, by config_id, in the order they are planned."""
    trials = results.trials()
    statuses = zip(trials["config_id"].to_pylist(), trials["status"].to_pylist(), strict=True)
    wanted = {config_id for config_id, status in statuses if status == TrialStatus.COMPLETED.value}
    plan = opened.plan_table()
    found: dict[str, TrialConfig] = {}
    for config_id, text in zip(plan["config_id"].to_pylist(), plan["config"].to_pylist(), strict=True):
        if config_id in wanted and config_id not in found:
            try:
                found[config_id] = TrialConfig.from_dict(json.loads(text))
            except (ValueError, TypeError, RecursionError) as error:
                fault = f"the plan must hold the configuration {config_id}, but does not"
                raise FaultsError(f"store {opened.uri}", [fault]) from error
    return found


def _sizes(results: Results) -> dict[str, int | None]:
    trials = results.trials()
    ids, sizes = (trials[name].to_pylist() for name in ("config_id", "trained_params_without_head"))
    return dict(zip(ids, sizes, strict=True))


def _table(found: Any, config_ids: Sequence[str], sizes: dict[str, int | None]) -> pa.Table:
    """As the store keeps it."""
    machine = found.machine
    told = {
        "length": found.length,
        **{name: machine.get(name) for name in ("device", "precision", "num_threads", "torch", "commit")},
        "host": socket.gethostname(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    rows = [
        {
            "backbone": cost.backbone,
            "method": cost.method,
            "options": json.dumps(dict(cost.options)),
            "trained_params_without_head": sizes.get(config_ids[cost.members[0]]),
            "form": cost.form,
            "batch_size": cost.batch_size,
            "latency_ms": cost.latency_ms,
            "examples_per_second": cost.examples_per_second,
            "times_backbone": cost.times_backbone,
            "config_ids": [config_ids[member] for member in cost.members],
            **told,
        }
        for cost in found.costs
    ]
    return pa.Table.from_pylist(rows)


def _show(screen: Console, results: Results) -> None:
    shown = cost_tables.inference_table(results.inference_costs(), results.backbone_names())
    screen.print(tables.to_rich(shown))
