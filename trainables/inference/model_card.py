"""The card of a model that is written for another library, with front matter that the hub reads."""

from __future__ import annotations

import json
from pathlib import Path

from trainables.inference.predictor import Predictor
from trainables.inference.stock_model import backbone_reference

# What a head reads, in the lines of a card that apply it to a model's `hidden` states of its `inputs` ...
READS = {
    "first": "hidden[:, 0]",
    "mean": '(hidden * inputs["attention_mask"][..., None]).sum(1) / inputs["attention_mask"].sum(1, keepdim=True)',
    "pooler": "outputs.pooler_output",
    "tokens": "hidden",
}
# ... and in words.
READ = {
    "first": "the first token's state",
    "mean": "the mean of all word pieces' states",
    "pooler": "the backbone's pooler",
    "tokens": "every word piece's state",
}


def write_card(path: Path, predictor: Predictor, *, library: str, usage: str, notes: str = "") -> None:
    """Write what the model is, its scores, and the code that opens it with that library."""
    path.write_text(_card(predictor, library, usage, notes), encoding="utf-8")


def _card(predictor: Predictor, library: str, usage: str, notes: str) -> str:
    config, task, info = predictor.config, predictor.task, predictor.backbone.info
    base, revision = backbone_reference(predictor)
    # A hub cannot know a folder of this machine.
    about = {"library_name": library, "tags": ["adaptune", config.method]}
    if not Path(base).is_absolute():
        about["base_model"] = base
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items())
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in predictor.scores.items())
    labels = f" Its labels are {', '.join(task.label_names)}, in this order." if task.label_names else ""
    prompt = f" Every text must begin with {info.prompt!r}." if info.prompt else ""
    seed = f"seed {config.seed}"
    if config.fold is not None:
        seed += f", without fold {config.fold} of {config.folds}"
    at = f" at revision {revision}" if revision else ""
    return f"""---
{front}
---

# {config.method} for {task.name}

Trained with adaptune on the task {task.name} ({task.kind}, measured by {task.metric}) over the backbone
{config.backbone}{at} (fingerprint {info.fingerprint}), {seed}; texts are cut at {config.max_length} word
pieces.{labels}{prompt}

| score | value |
|---|---|
{rows}

{notes}```python
{usage}```
"""
