"""Tables of text that say what trained models cost when they answer."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.text import wording
from orchestrator.analysis.text.tables import Names, TextTable

_FORMS = {"merged": "merged, as the backbone alone", "beside": "beside the backbone"}


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
                _FORMS.get(form, form),
                wording.count(first["trained_params_without_head"]),
                *(f"{by_size[size]['latency_ms']:.1f}" if size in by_size else wording.UNKNOWN for size in sizes),
                wording.count(largest["examples_per_second"]) if largest else wording.UNKNOWN,
                *(f"{by_size[size]['times_backbone']:.2f}" if size in by_size else wording.UNKNOWN for size in sizes),
            )
        )
    return TextTable(
        title="What an answer takes",
        left=("method", "of", "served"),
        right=(
            "parameters",
            *(f"ms, {size} at once" for size in sizes),
            "texts a second" if len(sizes) < 2 else f"texts a second, {sizes[-1]} at once",
            *(f"x backbone, {size}" for size in sizes),
        ),
        rows=tuple(cells),
        note=_note(rows[0]) if rows else None,
    )


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
        f"Texts of {row['length']} word pieces on {machine}, measured on {(row['measured_at'] or '')[:10]}. Parameters "
        "are those trained, head left out; tokenising is left out too."
    )
