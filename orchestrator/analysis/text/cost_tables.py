"""Tables of text that say what trained models cost when they answer."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.tables import Names, TextTable


def inference_table(costs: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per kind of model and form of `Results.inference_costs`, with a column a batch size."""
    backbones = backbone_names(costs) if backbones is None else backbones
    rows = costs.to_pylist()
    sizes = sorted({row["batch_size"] for row in rows})
    kinds: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for row in rows:
        key = (row["backbone"], row["method"], row["options"], row["form"])
        kinds.setdefault(key, {})[row["batch_size"]] = row
    told = _telling(rows)
    cells = []
    for (_, method, options, form), by_size in kinds.items():
        first = next(iter(by_size.values()))
        known: dict[str, Any] = json.loads(options)
        said = ", ".join(f"{name} {known[name]}" for name in told[method] if name in known)
        largest = by_size.get(sizes[-1])
        cells.append(
            (
                wording.method(first, backbones=backbones),
                said,
                form,
                wording.count(first["trained_params_without_head"]),
                *(_latency(by_size.get(size)) for size in sizes),
                wording.count(largest["examples_per_second"]) if largest else wording.UNKNOWN,
            )
        )
    return TextTable(
        title="What an answer takes: milliseconds a batch, and times those of the backbone alone",
        left=("method", "options", "form"),
        right=("trained", *(wording.plural(size, "text") for size in sizes), "texts/s"),
        rows=tuple(cells),
        note=_note(rows[0]) if rows else None,
    )


def _latency(row: dict[str, Any] | None) -> str:
    return f"{row['latency_ms']:.1f} ({row['times_backbone']:.2f}x)" if row else wording.UNKNOWN


def _telling(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The options of each method that have more than one value among its rows."""
    values: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        of_method = values.setdefault(row["method"], {})
        for name, value in json.loads(row["options"]).items():
            of_method.setdefault(name, set()).add(str(value))
    return {method: [name for name, seen in found.items() if len(seen) > 1] for method, found in values.items()}


def _note(row: dict[str, Any]) -> str:
    threads = "" if "cuda" in (row["device"] or "") else f", {wording.plural(int(row['num_threads'] or 0), 'thread')}"
    machine = f"{row['device']} ({row['host']}{threads}, {row['precision']})"
    return (
        "Merged: what was trained is written into the backbone's weights, which then cost what they always cost. "
        "Beside: it stands beside them, as where one backbone serves many tasks. Texts of "
        f"{row['length']} word pieces on {machine}, measured on {(row['measured_at'] or '')[:10]}; trained parameters "
        "without the head; texts a second in the largest batch. Tokenising is not in it."
    )
