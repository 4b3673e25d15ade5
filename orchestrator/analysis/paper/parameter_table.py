"""Table 1 of Houlsby et al. 2019: what a method scores on each task, and what it costs to serve all of them.

One frozen backbone serves all tasks of a method that trains a part of it or adds to it, and each task adds what it
trains. A task whose configuration trains the whole backbone needs a copy of its own. So for tasks with shares s of the
backbone the total is, as a multiple of the backbone, 1 + sum(s) where any task leaves it frozen, and the number of
tasks where none does. Heads are left out, since they depend on the number of labels and every method has one. A method
without a backbone has for each task a model of its own, and nothing beside these.

The paper's percentages are shares of the encoder's layers, without embeddings and pooler: of BERT-large, adapters of
size 64 with all LayerNorms train 1.92 % of everything and 2.13 % of the encoder; Table 1 says 2.1 %. Both are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import Configuration, contenders, group_by, higher_is_better
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.reported import Method, gaps, method_names, methods_of, splits, summary, tasks_of
from orchestrator.analysis.statistics import intervals
from orchestrator.analysis.text import wording
from trainables.config import HYPERPARAMETERS
from trainables.discovery import plugins_declaring

CHOSEN_PER_TASK = "chosen per task"
_WHOLE = "full_finetuning"
_METHODS = "trainables.methods"

_TABLE = {
    **dict.fromkeys(("backbone", "method", "size"), pa.string()),
    **dict.fromkeys(("num_tasks", "backbone_params", "encoder_params", "trained_params_all_tasks"), pa.int64()),
    "trained_params_per_task": pa.float64(),
    **dict.fromkeys(
        ("total_multiple", "trained_percent", "total_multiple_of_encoder", "trained_percent_of_encoder"), pa.float64()
    ),
    "average": pa.float64(),
}


@dataclass(frozen=True, kw_only=True)
class BackboneSize:
    """Parameters of a backbone: everything but a head, and the layers of its encoder alone. None where unknown."""

    whole: int | None
    encoder: int | None


def backbone_sizes(trials: pa.Table) -> dict[str, BackboneSize]:
    """The size of each backbone, of a trials table.

    The whole is what full fine-tuning trains, or else the largest model, without its head, of a method that adds
    nothing; where there is none of these, what the trials' provenance says (`backbone_params`, with a pooler even if
    no trial used it). The encoder is as their provenance says (`encoder_params`).
    """
    names = ("backbone", "method", "trained_params", "trained_params_without_head", "total_params", "provenance")
    said: dict[str, dict[str, int]] = {}
    counted: dict[str, dict[bool, int]] = {}
    add_nothing = plugins_declaring(_METHODS, "ADDS_NOTHING", True)
    for row in trials.select(names).to_pylist():
        own, backbone = said.setdefault(row["backbone"], {}), row["backbone"]
        for name in ("backbone_params", "encoder_params"):
            if text := (row["provenance"] or {}).get(name):
                own[name] = int(text)
        if row["method"] in add_nothing and None not in (row["trained_params"], row["total_params"]):
            is_whole = row["method"] == _WHOLE
            size = row["total_params"] - row["trained_params"] + row["trained_params_without_head"]
            of_backbone = counted.setdefault(backbone, {})
            of_backbone[is_whole] = max(of_backbone.get(is_whole, 0), size)
    sizes = {}
    for backbone, own in said.items():
        found = counted.get(backbone, {})
        whole = found.get(True, found.get(False, own.get("backbone_params")))
        sizes[backbone] = BackboneSize(whole=whole, encoder=own.get("encoder_params"))
    return sizes


def total_multiple(shares: Sequence[float]) -> float:
    """The parameters that serve all tasks, as a multiple of the backbone's, of the share that each task trains."""
    frozen = [share for share in shares if share < 1]
    return (1.0 if frozen else 0.0) + sum(min(share, 1.0) for share in shares)


def parameter_table(trials: pa.Table, configurations: Sequence[Configuration], split: str | None = None) -> pa.Table:
    """A row per method and size; `Results.parameter_table` has the columns."""
    tasks, sizes = tasks_of(configurations), backbone_sizes(trials)
    split_of = splits(configurations, split)
    rows = []
    chosen_somewhere: list[tuple[str, Method]] = []
    for (backbone, name), group in group_by(configurations, ["backbone", "method"]).items():
        by_size = {key[0]: own for key, own in group_by(group, ["trained_params_without_head"]).items()}
        by_size.pop(None, None)
        entries: list[tuple[str, Sequence[Configuration]]] = [(CHOSEN_PER_TASK, group)]
        if len(by_size) > 1:
            entries += [(_size_label(own, group), own) for _, own in sorted(by_size.items())]
        else:
            entries = [("", group)]
        for label, own in entries:
            best = {task: contenders([c for c in own if c.task == task]) for task in tasks}
            chosen = {task: found[0] for task, found in best.items() if found and summary(found[0], split_of[task])}
            if label in ("", CHOSEN_PER_TASK):
                chosen_somewhere += [(task, Method(backbone, name)) for task in chosen]
            if chosen:
                identity = {"backbone": backbone, "method": name, "size": label or None}
                rows.append(identity | _row(chosen, split_of, sizes[backbone]))
    notes = gaps(configurations, chosen_somewhere)
    notes += _incomplete(rows, len(tasks), configurations)
    notes += _unknown_sizes(sizes)
    scored = {task for row in rows for task in tasks if f"score/{task}" in row}
    for row in rows:  # means over different tasks cannot be compared
        row["average"] = row["average"] if row["num_tasks"] == len(scored) else None
    schema = pa.schema({**_TABLE, **{f"score/{task}": pa.float64() for task in tasks}})
    return with_missing(pa.Table.from_pylist(rows, schema=schema), notes)


def _row(chosen: Mapping[str, Configuration], split_of: Mapping[str, str], size: BackboneSize) -> dict[str, Any]:
    scores: dict[str, float] = {}
    for task, configuration in chosen.items():
        if score := summary(configuration, split_of[task]):
            scores[task] = score.mean
    directions = {higher_is_better(configuration.metric) for configuration in chosen.values()}
    row: dict[str, Any] = {
        "num_tasks": len(chosen),
        "backbone_params": size.whole,
        "encoder_params": size.encoder,
        "average": intervals.mean(list(scores.values())) if len(directions) == 1 else None,
        **{f"score/{task}": score for task, score in scores.items()},
    }
    trained = [configuration.trained_params_without_head for configuration in chosen.values()]
    counted = [number for number in trained if number is not None]
    if len(counted) < len(trained):
        return row
    without_backbone = plugins_declaring(_METHODS, "USES_BACKBONE", False)
    row["trained_params_all_tasks"] = sum(counted)
    row["trained_params_per_task"] = sum(counted) / len(counted)
    for suffix, whole in (("", size.whole), ("_of_encoder", size.encoder)):
        if whole:
            # What trains the embeddings too trains more than the encoder; it is the whole of it.
            shares = [min(number / whole, 1.0) for number in counted]
            row[f"total_multiple{suffix}"] = total_multiple(shares)
            if {configuration.method for configuration in chosen.values()} <= without_backbone:
                own = [_without_head(configuration) for configuration in chosen.values()]
                known = [number for number in own if number is not None]
                row[f"total_multiple{suffix}"] = sum(known) / whole if len(known) == len(own) else None
            row[f"trained_percent{suffix}"] = 100 * intervals.mean(shares)
    return row


def _without_head(configuration: Configuration) -> int | None:
    """The parameters of a whole model but for its head, trained or not."""
    counts = [configuration.value(name) for name in ("total_params", "trained_params", "trained_params_without_head")]
    return None if None in counts else counts[0] - counts[1] + counts[2]


def _size_label(own: Sequence[Configuration], group: Sequence[Configuration]) -> str:
    """The options that make a size what it is: "adapter_size 64". The number trained where none tells it apart."""
    options = [name for name in own[0].hyperparameters if name not in HYPERPARAMETERS]
    told = {}
    for name in options:
        here = {c.hyperparameters[name] for c in own}
        if len(here) == 1 and len({c.hyperparameters[name] for c in group}) > 1:
            told[name] = here.pop()
    return wording.hyperparameters(told, told) or f"{wording.count(own[0].trained_params_without_head)} trained"


def _incomplete(
    rows: Sequence[Mapping[str, Any]], num_tasks: int, configurations: Sequence[Configuration]
) -> list[str]:
    names = method_names(methods_of(configurations))
    return [
        f"{names[Method(row['backbone'], row['method'])]}, {row['size']}: on {row['num_tasks']} of "
        f"{wording.plural(num_tasks, 'task')}"
        for row in rows
        if row["num_tasks"] < num_tasks and row["size"] not in (None, CHOSEN_PER_TASK)
    ]


def _unknown_sizes(sizes: Mapping[str, BackboneSize]) -> list[str]:
    notes = []
    for backbone, size in sizes.items():
        if size.whole is None:
            notes.append(f"{backbone}: its size is not recorded, so no shares of it; trials of {_WHOLE} would tell")
        elif size.encoder is None:
            notes.append(f"{backbone}: the size of its encoder alone is not recorded, so no shares of that")
    return notes
