"""The recipe methods.py is measured against: one trial of Hugging Face's Trainer, freezing what is frozen.

`python trainer_trial.py SETTINGS.json` prints one JSON line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from backbone import backbone_folder
from recipe import training_arguments
from rows_by_datasets import tokenized, trainer_inputs
from transformers import AutoModelForSequenceClassification, Trainer, set_seed


def freeze(model: Any, method: str, options: dict[str, int]) -> None:
    """Leave to training what the method trains: everything, the top layers with the pooler, or the head alone."""
    if method == "full_finetuning":
        return
    trained = {"feature_based": [], "top_layers": [model.bert.pooler]}[method]
    if method == "top_layers":
        trained += model.bert.encoder.layer[-options["num_layers"] :]
    for part, trains in [(model.bert, False), *((part, True) for part in trained)]:
        for parameter in part.parameters():
            parameter.requires_grad = trains


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)  # its core
    set_seed(0)
    splits, tokenizer = tokenized(settings["data"])
    model = AutoModelForSequenceClassification.from_pretrained(backbone_folder(), num_labels=settings["num_labels"])
    freeze(model, settings["method"], settings["options"])
    arguments = training_arguments(
        settings["storage"],
        num_rows=len(splits["train"]),
        num_epochs=settings["num_epochs"],
        learning_rate=settings["learning_rate"],
        **settings["trainer"],
    )
    trainer = Trainer(model=model, args=arguments, **trainer_inputs(splits, tokenizer, settings["metric"]))
    trained = trainer.train()  # evaluates nothing on the way, so its rate is that of training alone
    answer = {
        "examples_per_second": trained.metrics["train_samples_per_second"],
        "validation_score": trainer.evaluate()["eval_score"],
    }
    print(json.dumps({"event": "outcome", **answer}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
