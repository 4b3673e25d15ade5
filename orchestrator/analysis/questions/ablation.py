"""Ablations as tables: what a trained trial scores without the adapters of a span of layers (Figure 6 of the paper).

A table has a row a span; its columns are those of `SCHEMA`, and one a component of the metric, "validation/f1".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.text import wording
from orchestrator.record import replicate

if TYPE_CHECKING:  # it comes from the room of torch
    from trainables.inference.ablation import Ablation

logger = logging.getLogger(__name__)

_OF_THE_TRIAL = ("sweep", "trial_id", "config_id", "task", "backbone", "method", "seed")
SCHEMA = pa.schema(
    {
        **{name: pa.int64() if name == "seed" else pa.string() for name in _OF_THE_TRIAL},
        **dict.fromkeys(("setting", "split", "metric"), pa.string()),
        **dict.fromkeys(("num_layers", "first_layer", "last_layer"), pa.int64()),
        **dict.fromkeys(("score", "whole_score", "score_difference", "score_relative_change"), pa.float64()),
        **dict.fromkeys(
            ("accuracy", "whole_accuracy", "accuracy_difference", "accuracy_relative_change"), pa.float64()
        ),
    }
)


def tabulate(ablation: Ablation, trial: Mapping[str, Any], *, split: str, hyperparameters: Sequence[str]) -> pa.Table:
    """An ablation of a recorded trial (a row of `Results.trials`) on a split, a row a span.

    `hyperparameters` are those that describe the trial in the column "setting".
    """
    shared = {name: trial[name] for name in _OF_THE_TRIAL}
    which = replicate(trial["seed"], trial.get("fold"))
    shared["setting"] = f"{wording.hyperparameters(trial, hyperparameters)}, {which}".removeprefix(", ")
    shared |= {"split": split, "metric": ablation.metric, "num_layers": ablation.num_layers}
    rows = [
        {
            **shared,
            "first_layer": span.first_layer,
            "last_layer": span.last_layer,
            **_compare("score", span.scores[ablation.metric], ablation.whole[ablation.metric]),
            **_compare("accuracy", span.scores.get("accuracy"), ablation.whole.get("accuracy")),
            **{f"{split}/{name}": value for name, value in span.scores.items()},
        }
        for span in ablation.spans
    ]
    components = [(f"{split}/{name}", pa.float64()) for name in ablation.whole]
    return pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA, *components]))


def conform(ablations: pa.Table | None) -> pa.Table:
    """Ablations as they were read, with every column of `SCHEMA` at its type and in its place; no rows for None.

    What is no ablation of a trial, or only a part of one, is named in a warning and left out.
    """
    if ablations is None:
        return SCHEMA.empty_table()
    columns = {
        field.name: ablations[field.name].cast(field.type)
        if field.name in ablations.column_names
        else pa.chunked_array([pa.nulls(len(ablations), field.type)])
        for field in SCHEMA
    }
    rest = {name: ablations[name] for name in ablations.column_names if name not in columns}
    return _whole_ones(pa.table({**columns, **rest}))


def _whole_ones(ablations: pa.Table) -> pa.Table:
    rows = ablations.select(SCHEMA.names).to_pylist()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["trial_id"], row["split"]), []).append(row)
    broken = {key for key, found in groups.items() if not _is_whole(found)}
    for _, trial_id, split in sorted(broken, key=str):
        logger.warning("the ablation of trial %s on %s is no whole one and is left out", trial_id, split)
    kept = [(row["task"], row["trial_id"], row["split"]) not in broken for row in rows]
    return ablations.filter(pa.array(kept, pa.bool_())) if broken else ablations


def _is_whole(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these rows are all L(L+1)/2 spans of an ablation, with what is read of each."""
    name = "score" if rows[0]["accuracy"] is None else "accuracy"
    needed = ["task", "trial_id", "split", "num_layers", "first_layer", "last_layer"]
    needed += [name, f"whole_{name}", f"{name}_difference", *(["metric"] if name == "score" else [])]
    if any(row[column] is None for row in rows for column in needed):
        return False
    size = rows[0]["num_layers"]
    spans = {(row["first_layer"], row["last_layer"]) for row in rows}
    is_every_span = len(rows) == len(spans) == size * (size + 1) // 2
    return is_every_span and all(0 <= first <= last < size for first, last in spans)


def each(ablations: pa.Table) -> list[pa.Table]:
    """The ablations of a table one by one, a table for each trial and split, by task."""
    keys = [(row["task"], row["trial_id"], row["split"]) for row in ablations.to_pylist()]
    return [ablations.filter(pa.array([key == one for key in keys])) for one in sorted(set(keys))]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """One ablation as it is told and drawn: by accuracy, as in the paper, or by the score where there is none."""

    task: str
    trial_id: str
    setting: str  # what was trained
    measure: str  # validation accuracy
    num_layers: int
    whole: float  # with all adapters
    bare: float  # without any
    differences: np.ndarray  # (num_layers, num_layers), [first, last]: how much better without; NaN below the diagonal
    percent: np.ndarray  # the same, in per cent of `whole`; NaN also where that is 0 or less

    @property
    def sentence(self) -> str:
        """What the ablation says."""
        single = np.diagonal(self.differences)
        layer = int(np.argmin(single))
        most = f"Of single layers, layer {layer} matters most ({wording.signed(float(single[layer]))})."
        if not single[layer] < 0:
            most = "Without the adapters of any single layer it is no lower."
        return (
            f"With all adapters {self.measure} is {wording.score(self.whole)}, without any {wording.score(self.bare)}. "
            f"{most}"
        )


def read(ablation: pa.Table) -> Reading:
    """Read the rows of one trial and split, of which there must be L(L+1)/2."""
    rows = ablation.to_pylist()
    about, size = rows[0], rows[0]["num_layers"]
    name = "score" if about["accuracy"] is None else "accuracy"
    metric = name if name == "accuracy" else about["metric"].replace("_", " ")
    differences, percent = np.full((size, size), np.nan), np.full((size, size), np.nan)
    for row in rows:
        place = row["first_layer"], row["last_layer"]
        differences[place] = row[f"{name}_difference"]
        if row[f"{name}_relative_change"] is not None:
            percent[place] = 100 * row[f"{name}_relative_change"]
    whole = about[f"whole_{name}"]
    return Reading(
        task=about["task"],
        trial_id=about["trial_id"],
        setting=f"{about['method']}, {about['setting']}",
        measure=f"{about['split']} {metric}",
        num_layers=size,
        whole=whole,
        bare=whole + differences[0, size - 1],
        differences=differences,
        percent=percent,
    )


def _compare(name: str, without: float | None, whole: float | None) -> dict[str, float | None]:
    """A score without a span's adapters beside that of the whole model: less it, and that as a share of it.

    The share is null where the whole model scores 0 or less, of which nothing can be a share.
    """
    if without is None or whole is None:
        return {}
    difference = without - whole
    return {
        name: without,
        f"whole_{name}": whole,
        f"{name}_difference": difference,
        f"{name}_relative_change": difference / whole if whole > 0 else None,
    }
