"""How fast the methods that train no adapters are: one trial each on one core, against Hugging Face's Trainer.

One epoch over the first rows of the task folder that ADAPTUNE_BENCH_TASK names; the scores only show that both learn.
With ADAPTUNE_BENCH_TUNED set, also against an opponent who asks for bf16 and for batches of similar length.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _opponent
from trainables.methods import method_names

ROWS = 4096
LEARNING_RATE = 1e-4
METHODS: Mapping[str, Mapping[str, int]] = {"top_layers": {"num_layers": 2}, "full_finetuning": {}, "feature_based": {}}


def measure() -> dict[str, Any]:
    """Examples per second of training on each side and their ratio; seconds of the whole commands and theirs."""
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="adaptune-methods-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        num_labels = _opponent.task_for_both(folder / "task", rows=ROWS).info.num_labels
        _opponent.warm_up(_opponent.opponent_python(), ["datasets", "transformers.trainer"])
        _opponent.warm_up(sys.executable, ["trainables.engine.engine"])
        for method in sorted(METHODS.keys() & set(method_names())):
            measured |= {f"{method}.{name}": value for name, value in _race(folder, method, num_labels).items()}
    return measured


def _race(folder: Path, method: str, num_labels: int) -> dict[str, float]:
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
    for prefix, arguments in _opponent.recipes().items():
        settings = {
            "data": str(folder / "task"),
            "num_labels": num_labels,
            "method": method,
            "options": METHODS[method],
            "learning_rate": LEARNING_RATE,
            "num_epochs": 1,
            "trainer": arguments,
            "storage": str(folder / "trainer"),
        }
        opponent = _opponent.run_opponent("trainer_trial.py", settings, folder / f"{prefix}opponent-{method}")
        theirs = opponent.events[-1]
        measured |= {
            f"{prefix}opponent_examples_per_second": theirs["examples_per_second"],
            f"{prefix}opponent_s": opponent.seconds,
            f"{prefix}opponent_validation_score": theirs["validation_score"],
            f"{prefix}ratio": ours["examples_per_second"] / theirs["examples_per_second"],
            f"{prefix}whole_ratio": opponent.seconds / adaptune.seconds,
        }
    return measured
