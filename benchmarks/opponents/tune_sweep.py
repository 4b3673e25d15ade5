"""The opponent "documented": Ray Tune over Hugging Face's Trainer, told to MLflow, as their documentation says.

A function trainable a trial, a core a trial, float32; the model is `adapter_bert.py`, the recipe `recipe.py`.
`python tune_sweep.py SETTINGS.json` prints one JSON line a trial.
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
    """One trial: load, tokenise, adapt, train, reporting the validation score after each epoch; then test."""
    # Imported here, where they are used: the driver needs none of them.
    import torch
    from adapter_bert import AdapterBert
    from recipe import last_score, pretrained_encoder, training_arguments
    from rows_by_datasets import tokenized, trainer_inputs
    from transformers import Trainer, TrainerCallback, set_seed

    trial = config["trial"]
    torch.set_num_threads(1)  # the trial's core; Ray sets OMP_NUM_THREADS to the same
    set_seed(trial["seed"])
    splits, tokenizer = tokenized(settings["data"])
    model = AdapterBert(pretrained_encoder(), adapter_size=trial["adapter_size"], num_labels=settings["num_labels"])

    class ReportEpoch(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **rest: Any) -> None:
            tune.report({"validation_score": metrics["eval_score"], "epoch": state.epoch})

    arguments = training_arguments(
        str(Path.cwd() / "trainer"),
        num_rows=len(splits["train"]),
        num_epochs=settings["num_epochs"],
        seed=trial["seed"],
        learning_rate=trial["learning_rate"],
        eval_strategy="epoch",
    )
    inputs = trainer_inputs(splits, tokenizer, settings["metric"])
    trainer = Trainer(model=model, args=arguments, callbacks=[ReportEpoch()], **inputs)
    began = time.time()
    trainer.train()
    scores = {"validation_score": last_score(trainer.state.log_history)}
    if "test" in splits:
        scores["test_score"] = trainer.predict(splits["test"]).metrics["test_score"]
    tune.report({**scores, "began_at": began, "ended_at": time.time()})


def main(settings: dict[str, Any]) -> int:
    """Exit status: 0 where every trial completed."""
    init(address="local", num_cpus=settings["cores"])
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_trial, settings=settings), {"cpu": 1}),
        param_space={"trial": tune.grid_search(settings["trials"])},
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
            values = ("validation_score", "test_score", "began_at", "ended_at")
            line = {**result.config["trial"], **{name: result.metrics.get(name) for name in values}}
            print(json.dumps({"event": "trial", **line}), flush=True)
    return 1 if results.num_errors else 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
