"""What to ship, in sentences: the setting, what it costs, and how sure that is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.analysis.configurations import backbone_names, higher_is_better, interval_of_scores
from orchestrator.analysis.questions.settings import seconds_per_configuration
from orchestrator.analysis.text import wording

Row = Mapping[str, Any]


def overview(recommended: pa.Table) -> str:
    """All recommendations in one sentence: how much of the model they train, and what that gives up."""
    rows = recommended.to_pylist()
    shares = [100 * r["trained_params"] / r["total_params"] for r in rows if r["trained_params"] and r["total_params"]]
    said = [f"One setting for each of {wording.plural(len(rows), 'task')}" if len(rows) > 1 else "One task"]
    if shares:
        low, high = (f"{share:.3g}" for share in (min(shares), max(shares)))
        said.append(f"training {low} % of the model" if low == high else f"training {low} to {high} % of the model")
    lost = [gap for row in rows if (gap := _gap(row)) is not None]
    if lost:
        median = statistics.median(lost)
        if abs(median) < 0.0005:
            said.append(
                "and scoring as the best one tried" if len(rows) == 1 else "and at the median scoring as the best"
            )
        else:
            word = "below" if median > 0 else "above"
            at = "" if len(rows) == 1 else "at the median "
            said.append(f"and {at}scoring {abs(median):.3f} {word} the best by validation")
    return ", ".join(said) + "."


def per_task(recommended: pa.Table, trials: pa.Table, searched: Sequence[str]) -> list[tuple[str, str]]:
    """For each task what to ship, what it costs, what it scores and why it was chosen, in sentences."""
    seconds, backbones = seconds_per_configuration(trials), backbone_names(trials)
    said = []
    for row in recommended.to_pylist():
        setting = wording.hyperparameters(row, searched)
        name = wording.method(row, backbones=backbones) + (f" ({setting})" if setting else "")
        sentences = [
            f"Ship {name}.",
            _cost(row, seconds.get(row["config_id"]), says_size=bool(backbones)),
            _scored(row),
            row["why"],
        ]
        said.append((row["task"], " ".join(filter(None, sentences))))
    return said


def _cost(row: Row, seconds: float | None, *, says_size: bool) -> str:
    """With `says_size` how large the whole model is too: on another backbone it costs another time to use."""
    params, took = row["trained_params"], ""
    if seconds is not None:
        took = f"{wording.duration(seconds)} of an engine" if seconds >= 1 else "less than a second of an engine"
    if params is None:
        return f"A training takes {took}." if took else ""
    share = f", {wording.share(params, row['total_params'])} of the model" if row["total_params"] else ""
    share += f" of {wording.count(row['total_params'])}" if row["total_params"] and says_size else ""
    trains = f"It trains {wording.count(params)} parameters{share}"
    return f"{trains}, and takes {took}." if took else f"{trains}."


def _scored(row: Row) -> str:
    tested = row["test_mean"] is not None
    split = "test" if tested else "validation"
    metric = (row["metric"] or "score").replace("_", " ")
    score = wording.score(row[f"{split}_mean"], row[f"{split}_sem"])
    said = f"{split.capitalize()} {metric} {score} over {wording.replicates(row['num_seeds'], row['num_folds'])}"
    if tested and row["test_low"] is not None:
        said += f" (95 % interval {interval_of_scores(row['test_low'], row['test_high'], row['metric'])})"
    if row["num_seeds"] == 1:
        said += f", so how far {'seeds scatter' if row['num_folds'] is None else 'folds scatter'} is not known"
    if not tested:
        said += ", the split it was chosen on, which is optimistic"
    return f"{said}; chosen among {wording.plural(row['num_configs_tried'], 'setting')}."


def _gap(row: Row) -> float | None:
    """How much worse than the best of its task on the split that is reported; positive is worse."""
    split = "test" if row["test_mean"] is not None and row["best_test_mean"] is not None else "validation"
    mean, best = row[f"{split}_mean"], row[f"best_{split}_mean"]
    if mean is None or best is None:
        return None
    return (best - mean) if higher_is_better(row["metric"]) else (mean - best)
