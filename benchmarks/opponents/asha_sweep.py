"""The opponent of answer.py: the trials of `loop_trial.py` under Ray Tune, which stops the worse ones by ASHA.

By someone who knows both: rows are tokenised once, a process trains one trial after the other, and the rule's settings
are those of adaptune's side. `python asha_sweep.py SETTINGS.json` prints one JSON line a trial.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray
from loop import tokenized
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler


def train_trial(config: dict[str, Any], settings: dict[str, Any], splits: Any) -> None:
    """One trial, told to Tune after each epoch."""
    import loop_trial

    loop_trial.prepare()
    loop_trial.train_trial(config["trial"], settings, splits, lambda score: tune.report({"validation_score": score}))


def main(settings: dict[str, Any]) -> int:
    """Exit status: 0 where no trial failed."""
    ray.init(address="local", num_cpus=settings["cores"])
    splits = tokenized(Path(settings["data"]))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_trial, settings=settings, splits=splits), {"cpu": 1}),
        param_space={"trial": tune.grid_search(settings["trials"])},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            metric="validation_score",
            mode="max",
            scheduler=AsyncHyperBandScheduler(
                grace_period=settings["grace_period"],
                reduction_factor=settings["reduction_factor"],
                max_t=settings["num_epochs"],
            ),
        ),
        run_config=tune.RunConfig(name="opponent", storage_path=settings["storage"]),
    )
    results = tuner.fit()
    for result in results:
        if result.error is None:
            scores = result.metrics_dataframe["validation_score"].tolist()
            line = {**result.config["trial"], "validation_score": scores[-1], "epochs": len(scores)}
            print(json.dumps({"event": "trial", **line}), flush=True)
    return 1 if results.num_errors else 0


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
