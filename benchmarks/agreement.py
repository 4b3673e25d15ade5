"""Whether packing changes scores: five seeds trained as one pack against the same five, each alone.

In the device's own precision, where sums in another order round differently; in float32 a test holds both to 1e-5.
Measured on the (first) task folder that ADAPTUNE_BENCH_TASK names.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

from benchmarks import _opponent
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.outcome import TrialOutcome

SEEDS = range(5)


def measure() -> dict[str, float | Sequence[float]]:
    """Test scores both ways, the difference of their means and the standard error of the mean over seeds."""
    task = _opponent.named_tasks(os.environ)[0]
    configs = [
        TrialConfig(
            task=task,
            backbone="minilm",
            method="adapter",
            method_options={"adapter_size": 64},
            learning_rate=1e-3,
            num_epochs=3,
            seed=seed,
        )
        for seed in SEEDS
    ]
    packed = Engine().run_all(configs)
    alone = [outcome for config in configs for outcome in Engine().run_all([config])]
    scores = [[_score(outcome) for outcome in side] for side in (packed, alone)]
    means = [statistics.fmean(side) for side in scores]
    return {
        "mean_pack_size": statistics.fmean(outcome.pack_size or 0 for outcome in packed),
        "packed_scores": scores[0],
        "alone_scores": scores[1],
        "difference_of_means": abs(means[0] - means[1]),
        "alone_standard_error": statistics.stdev(scores[1]) / len(SEEDS) ** 0.5,
    }


def _score(outcome: TrialOutcome) -> float:
    score = outcome.validation_score if outcome.test_score is None else outcome.test_score
    if score is None:
        raise RuntimeError(f"a trial ended without a score: {outcome.error}")
    return score
