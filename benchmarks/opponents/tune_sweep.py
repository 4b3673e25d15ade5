"""The recipe makespan.py is measured against: Ray Tune over Hugging Face's Trainer with adapters, told to MLflow.

A function trainable a trial, a core a trial, as the documentation of Ray Tune, adapters and MLflow's Ray callback puts
them together. `python tune_sweep.py SETTINGS.json` prints one JSON line a trial.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ray import init, tune
from ray.air.integrations.mlflow import MLflowLoggerCallback


def train_trial(config: dict[str, Any], settings: dict[str, Any]) -> None:
    """One trial: load, tokenise, adapt, train, reporting validation accuracy after each epoch; then test."""
    began = time.perf_counter()
    # Imported here, where they are used: the driver needs none of them.
    import torch
    from adapters import AdapterTrainer, AutoAdapterModel, DoubleSeqBnConfig
    from recipe import BACKBONE, tokenized, trainer_inputs, training_arguments
    from transformers import TrainerCallback, set_seed

    torch.set_num_threads(1)  # the trial's core; Ray sets OMP_NUM_THREADS to the same
    set_seed(config["seed"])
    splits, tokenizer = tokenized(settings["data"])
    model = AutoAdapterModel.from_pretrained(BACKBONE)
    # The paper's head, one layer on the frozen pooler: the same trained model on both sides, so that scores compare.
    model.add_classification_head("task", num_labels=settings["num_labels"], layers=1, use_pooler=True)
    # Houlsby's two adapters a layer; the preset's other choices (swish) are its own.
    size = DoubleSeqBnConfig(reduction_factor=model.config.hidden_size / config["adapter_size"])
    model.add_adapter("task", config=size)
    model.train_adapter("task")  # freezes the rest and activates the adapter
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:  # trained in the paper and in adaptune, frozen by the preset
            parameter.requires_grad = True

    class ReportEpoch(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **rest: Any) -> None:
            tune.report({"validation_accuracy": metrics["eval_accuracy"], "epoch": state.epoch})

    arguments = training_arguments(
        str(Path.cwd() / "trainer"),
        seed=config["seed"],
        learning_rate=config["learning_rate"],
        num_train_epochs=settings["num_epochs"],
        eval_strategy="epoch",
        **settings["trainer"],
    )
    trainer = AdapterTrainer(
        model=model, args=arguments, callbacks=[ReportEpoch()], **trainer_inputs(splits, tokenizer)
    )
    trainer.train()
    last = next(entry for entry in reversed(trainer.state.log_history) if "eval_accuracy" in entry)
    scores = {"validation_accuracy": last["eval_accuracy"]}
    if "test" in splits:
        scores["test_accuracy"] = trainer.predict(splits["test"]).metrics["test_accuracy"]
    tune.report({**scores, "seconds": time.perf_counter() - began})


def main(settings: dict[str, Any]) -> int:
    """Exit status: 0 where every trial completed."""
    init(address="local", num_cpus=settings["cores"])
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_trial, settings=settings), {"cpu": 1}),
        param_space={name: tune.grid_search(values) for name, values in settings["grid"].items()},
        # A process trains one trial after the other, so that imports are paid once; off by default.
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name="opponent",
            storage_path=settings["storage"],
            callbacks=[MLflowLoggerCallback(tracking_uri=settings["tracking_uri"], experiment_name="opponent")],
        ),
    )
    results = tuner.fit()
    for result in results:
        if result.error is None:
            values = ("validation_accuracy", "test_accuracy", "seconds")
            line = {**result.config, **{name: result.metrics.get(name) for name in values}}
            print(json.dumps({"event": "trial", **line}), flush=True)
    return 1 if results.num_errors else 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
