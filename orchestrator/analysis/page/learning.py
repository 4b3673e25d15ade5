"""The learning curves that the page carries: of all trials, or where there are many of the best of each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from orchestrator.analysis.page.blocks import Curve, Curves
from orchestrator.analysis.page.leading import leading, ranks
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import wording
from orchestrator.record import replicate

MOST_TRIALS = 2000  # listed on the page, each with its learning curve
_MOST_EPOCHS = 40_000  # of all curves together
_PICKED = 3
_MEASURES = ("validation_score", "train/loss", "validation/loss")


def learning_curves(results: Results) -> Curves | None:
    """The learning curves of the leading trials. Nothing where no epoch was recorded."""
    epochs = results.epochs()
    measures = [name for name in _MEASURES if name in epochs.column_names and epochs[name].null_count < len(epochs)]
    if not len(epochs) or not measures:
        return None
    trials = leading(results.trials(), MOST_TRIALS)
    own = epochs.filter(pc.is_in(epochs["trial_id"], trials["trial_id"].combine_chunks()))
    columns = {name: own[name].to_pylist() for name in ("trial_id", "epoch", *measures)}
    places: dict[str, list[int]] = {}
    for place, trial in enumerate(columns["trial_id"]):
        places.setdefault(trial, []).append(place)
    order = sorted(range(len(trials)), key=ranks(trials).__getitem__)
    backbones, searched = results.backbone_names(), results.searched()
    rows = trials.select([name for name in trials.column_names if name in {*_NAMED, *searched}]).to_pylist()
    curves: dict[int, Curve] = {}
    room = _MOST_EPOCHS
    for index in order:
        row = rows[index]
        found = sorted(places.get(row["trial_id"], ()), key=columns["epoch"].__getitem__)
        if not found or len(found) > room:
            continue
        room -= len(found)
        curves[index] = Curve(
            trial=row["trial_id"],
            name=_name(row, searched, backbones),
            task=row["task"],
            method=row["method"],
            backbone=backbones.get(row["backbone"]),
            epochs=[columns["epoch"][place] for place in found],
            values={name: [_rounded(columns[name][place]) for place in found] for name in measures},
        )
    kept = [curves[index] for index in sorted(curves)]
    if not kept:
        return None
    recorded = pc.count_distinct(epochs["trial_id"]).as_py()
    note = None
    if len(kept) < recorded:
        note = (
            f"Of {wording.plural(recorded, 'trial')} with epochs, the {len(kept):,} that were best on validation of "
            "each task and method are here; epochs.csv has all."
        )
    first = kept[0].task
    best_first = [curves[i] for i in order if i in curves and curves[i].task == first]
    picked = list({(c.method, c.backbone): c.trial for c in reversed(best_first)}.values())[-_PICKED:]
    return Curves(curves=kept, measures=measures, picked=sorted(picked), note=note)


_NAMED = frozenset({"trial_id", "task", "method", "backbone", "peft_type", "seed", "fold", "status"})


def _name(row: dict[str, Any], searched: Sequence[str], backbones: Mapping[str, str]) -> str:
    setting = wording.hyperparameters(row, searched)
    status = "" if row["status"] == "completed" else f", {row['status']}"
    method = wording.method(row, backbones=backbones)
    return f"{row['task']}: {method}{f' {setting}' if setting else ''}, {replicate(row['seed'], row['fold'])}{status}"


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.4g}")
