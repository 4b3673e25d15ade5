"""How fast the methods that train no adapters are: one trial each on one core, against Hugging Face's Trainer.

One epoch over the first rows of the (first) task folder that ADAPTUNE_BENCH_TASK names; the scores only show that both
learn. Of the opponents that ADAPTUNE_BENCH_OPPONENTS names, "documented" has the Trainer's defaults and "loop" asks it
for bf16 and for batches of similar length.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _opponent
from trainables.methods import method_names
from trainables.task import TaskInfo

ROWS = 4096
LEARNING_RATE = 1e-4
METHODS: Mapping[str, Mapping[str, int]] = {"top_layers": {"num_layers": 2}, "full_finetuning": {}, "feature_based": {}}


def measure() -> dict[str, Any]:
    """Examples per second of training on each side and their ratio; seconds of the whole commands and theirs."""
    measured: dict[str, Any] = {}
    reference, opponents = _opponent.named_tasks(os.environ)[0], _opponent.named_opponents(os.environ)
    with tempfile.TemporaryDirectory(prefix="adaptune-methods-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        info = _opponent.task_for_both(folder / "task", reference, rows=ROWS).info
        _opponent.warm_up(_opponent.opponent_python(), ["datasets", "transformers.trainer"])
        _opponent.warm_up(sys.executable, ["trainables.engine.engine"])
        for method in sorted(METHODS.keys() & set(method_names())):
            measured |= {f"{method}.{name}": value for name, value in _race(folder, method, info, opponents).items()}
    return measured


def _race(folder: Path, method: str, info: TaskInfo, opponents: Sequence[str]) -> dict[str, float]:
    options = [part for name, value in METHODS[method].items() for part in ("--option", f"{name}={value}")]
    trial = ["--task", str(folder / "task"), "--method", method, *options, "--num-epochs", "1"]
    trial += ["--learning-rate", str(LEARNING_RATE), "--device", "cpu", "--threads", "1"]
    adaptune = _opponent.run([sys.executable, "-m", "trainables", *trial], folder / f"adaptune-{method}")
    ours = adaptune.events[-1]
    measured = {
        "adaptune_examples_per_second": ours["examples_per_second"],
        "adaptune_s": adaptune.seconds,
        "adaptune_validation_score": ours["validation_score"],
    }
    for name in opponents:
        settings = {
            "data": str(folder / "task"),
            "num_labels": info.num_labels,
            "metric": info.metric,
            "method": method,
            "options": METHODS[method],
            "learning_rate": LEARNING_RATE,
            "num_epochs": 1,
            "trainer": _opponent.OPPONENTS[name],
            "storage": str(folder / "trainer"),
        }
        opponent = _opponent.run_opponent("trainer_trial.py", settings, folder / f"{name}-{method}")
        theirs = opponent.events[-1]
        measured |= {
            f"{name}_examples_per_second": theirs["examples_per_second"],
            f"{name}_s": opponent.seconds,
            f"{name}_validation_score": theirs["validation_score"],
            f"{name}_ratio": ours["examples_per_second"] / theirs["examples_per_second"],
            f"{name}_whole_ratio": opponent.seconds / adaptune.seconds,
        }
    return measured
