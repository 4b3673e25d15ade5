"""The model card of what is exported, completed by what its sweep knows: spread, data, provenance, and front matter.

The card that comes with the weights says what they are and how to use them. Only the sweep knows how its other seeds
did, on how many rows, and among how many settings it was chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData

from orchestrator.analysis.configurations import interval_of_scores, replicate_of
from orchestrator.analysis.replicates import mean_of_folds
from orchestrator.analysis.statistics.intervals import (
    corrected_over_folds,
    estimate_over_seeds_and_rows,
    mean_and_standard_error,
    t_interval,
)
from orchestrator.analysis.text import wording
from orchestrator.record import replicate
from trainables.packaged import PACKAGED, packaged_folder

_FRONT = re.compile(r"\A---\n(.*?)\n---\n", flags=re.DOTALL)
_PIPELINE = {"classification": "text-classification", "multilabel": "text-classification", "regression": None}
_PROVENANCE = ("commit", "outcome_version", "device", "precision")
_PACKAGES = ("adaptune", "python", "torch", "transformers", "numpy")
_SPLITS = ("test", "validation")
_OVER_SEEDS = (
    "An interval over seeds is Student's and says nothing of other rows. The one over rows too takes rows and seeds as "
    "independent draws; it is given for accuracy."
)
_OVER_FOLDS = (
    "Any two folds share rows that they train on, so the standard error over folds is too small; the interval is "
    "widened as Nadeau and Bengio (2003) propose. Of test scores, which all folds have on the same rows, it says "
    "nothing of other rows and is too narrow."
)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a sweep knows of the trial that is exported.

    Args:
        trial: its row of `Results.trials`.
        replicates: the rows of all completed trials of its configuration, its own among them.
        num_configurations: how many of its task, method and backbone have been tried.
        num_failed: how many trials of its task, method and backbone failed.
        task: what its saved adapter says of its task.
    """

    trial: Mapping[str, Any]
    replicates: Sequence[Mapping[str, Any]]
    num_configurations: int
    num_failed: int
    task: Mapping[str, Any]


def completed_card(card: str, standing: Standing) -> str:
    """A card with front matter that the hub reads, scores with intervals, data and provenance added.

    `card` is what came with the weights: front matter of one value a line, then text whose code stands last.
    """
    card = _without_folders(card, str(standing.trial["backbone"]))
    front = _FRONT.match(card)
    about = _values(front.group(1)) if front else {}
    body = card[front.end() :] if front else card
    before, fence, code = body.partition("```python")
    parts = [before.rstrip(), _scores(standing), _data(standing), _provenance(standing)]
    text = "\n\n".join(parts) + (f"\n\n## Use\n\n{fence}{code}" if fence else "\n")
    return f"---\n{_front_matter(about, standing)}\n---\n{text}"


def _without_folders(card: str, backbone: str) -> str:
    """Where the backbone lies on this machine is nobody else's business, nor of use to anybody else."""
    folder = packaged_folder(backbone) if backbone in PACKAGED else Path(backbone)
    if folder is None or not folder.is_absolute():
        return card
    return card.replace(str(folder), f"path/to/{Path(backbone).name}")


def _values(front: str) -> dict[str, Any]:
    """Front matter as the writers of cards give it: a name and a JSON value, plain text or a list of words a line."""
    found: dict[str, Any] = {}
    for line in front.splitlines():
        name, _, value = line.partition(": ")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = [part.strip() for part in value[1:-1].split(",")] if value.startswith("[") else value
    return found


def _front_matter(about: Mapping[str, Any], standing: Standing) -> str:
    trial, task = standing.trial, standing.task
    base = about.get("base_model")
    source = str(task.get("source") or "")
    data = ModelCardData(
        # A packaged encoder or a folder of this machine is none that a hub knows.
        base_model=base if isinstance(base, str) and _is_hub_id(base) else None,
        library_name=about.get("library_name"),
        tags=about.get("tags"),
        pipeline_tag=_PIPELINE.get(str(task.get("kind"))),
        metrics=[trial["metric"]],
        model_name=f"{trial['method']} for {trial['task']}",
        eval_results=[
            EvalResult(
                task_type=_PIPELINE.get(str(task.get("kind"))) or str(task.get("kind")),
                dataset_type=re.sub(r"[^\w./-]", "-", source if _is_hub_id(source) else str(trial["task"])),
                dataset_name=str(trial["task"]),
                dataset_split=split,
                metric_type=trial["metric"],
                metric_name=trial["metric"].replace("_", " "),
                metric_value=round(trial[f"{split}_score"], 6),
            )
            for split in _SPLITS
            if trial[f"{split}_score"] is not None
        ],
    )
    return data.to_yaml().strip()


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()


def _scores(standing: Standing) -> str:
    trial, metric, num_folds = standing.trial, standing.trial["metric"], _num_folds(standing)
    over = "seeds" if num_folds is None else "folds"
    lines = [
        "## Scores",
        "",
        f"| {metric.replace('_', ' ')} on | these weights | mean over {over} | 95 % interval, other {over} | "
        f"95 % interval, other {over} and rows |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = _rows_by_split(trial)
    for split in _SPLITS:
        known = [row for row in standing.replicates if row[f"{split}_score"] is not None]
        if trial[f"{split}_score"] is None or not known:
            continue
        scores = [row[f"{split}_score"] for row in known]
        mean, error = mean_and_standard_error(scores)
        of_replicates, of_rows = t_interval(scores), None
        if num_folds is not None:
            which = [replicate_of(row["seed"], row["fold"]) for row in known]
            widened = corrected_over_folds(mean_of_folds(np.array(scores), which), num_folds)
            of_replicates = replace(widened, mean=mean).interval() if widened else None
        elif metric == "accuracy" and split in rows and len(scores) > 1:
            estimate = estimate_over_seeds_and_rows(scores, rows[split])
            of_rows = None if estimate is None else estimate.interval()
        cells = (
            split,
            f"{trial[f'{split}_score']:.4f}",
            wording.score(mean, error, len(scores)),
            _interval(of_replicates, metric),
            _interval(of_rows, metric),
        )
        lines.append(f"| {' | '.join(cells)} |")
    tried = wording.plural(standing.num_configurations, "configuration")
    were = "was" if standing.num_configurations == 1 else "were"
    failed = f"; {wording.plural(standing.num_failed, 'trial')} failed" if standing.num_failed else ""
    said = (
        f"{tried} of {trial['method']} {were} tried on this task{failed}. Configurations are chosen on validation, "
        f"and of the chosen one's {over} the best there, so that validation scores are flattered; test rows have no "
        f"part in any choice. These weights are those of {replicate(trial['seed'], trial.get('fold'))}. "
    )
    said += _OVER_SEEDS if num_folds is None else _OVER_FOLDS
    lines += ["", f"{said} Intervals end at the best score there is."]
    return "\n".join(lines)


def _num_folds(standing: Standing) -> int | None:
    """Into how many folds the task is cut, as far as the trials of the configuration show it."""
    folds = [row["fold"] + 1 for row in standing.replicates if row.get("fold") is not None]
    told = (standing.trial["provenance"] or {}).get("folds")
    return max([*folds, int(told or 0)]) if folds else None


def _interval(bounds: tuple[float, float] | None, metric: str) -> str:
    return wording.UNKNOWN if bounds is None else interval_of_scores(*bounds, metric)


def _rows_by_split(trial: Mapping[str, Any]) -> dict[str, int]:
    """Of the provenance's "4907 train, 545 validation, 500 test"."""
    text = str((trial["provenance"] or {}).get("rows") or "")
    return {split: int(number) for number, split in re.findall(r"(\d+) (\w+)", text)}


def _data(standing: Standing) -> str:
    trial, task = standing.trial, standing.task
    facts = trial["provenance"] or {}
    lines = ["## Data", "", f"- Task: {trial['task']}, {task.get('kind')}" + (", of pairs" if task.get("pair") else "")]
    source = str(task.get("source") or "")
    if source and not Path(source.partition(" ")[0]).is_absolute():
        lines.append(f"- Source: {source}")
    if facts.get("rows"):
        lines.append(f"- Rows: {facts['rows']}")
    if facts.get("data_fingerprint"):
        lines.append(f"- Fingerprint of the rows: sha256 {facts['data_fingerprint']}")
    if names := task.get("label_names"):
        lines.append(f"- Labels: {', '.join(map(str, names))}")
    return "\n".join(lines)


def _provenance(standing: Standing) -> str:
    trial = standing.trial
    facts = trial["provenance"] or {}
    lines = ["## Provenance", "", f"- Trial {trial['trial_id']} of configuration {trial['config_id']}"]
    lines.append(f"- Trained at {trial['started_at']}, for {wording.duration(trial['duration_s'])}")
    if facts.get("backbone_fingerprint"):
        lines.append(f"- Backbone: {Path(trial['backbone']).name}, fingerprint {facts['backbone_fingerprint']}")
    lines += [f"- {name.replace('_', ' ').capitalize()}: {facts[name]}" for name in _PROVENANCE if facts.get(name)]
    versions = ", ".join(f"{name} {facts[name]}" for name in _PACKAGES if facts.get(name))
    return "\n".join([*lines, *([f"- Versions: {versions}"] if versions else [])])
