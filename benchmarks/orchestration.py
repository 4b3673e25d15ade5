"""What a trial costs beside its training: trials that do nothing, with their records and their runs in MLflow.

Beside it, in the same run, plain Ray Tune with a reusable class and Ray's own MLflow callback, both on SQLite.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _opponent

SMALL, LARGE = 1_000, 10_000


def measure() -> dict[str, Any]:
    """Trials a second of each side at 1,000 trials, and of ours at 10,000; what the driver's memory grew by."""
    with tempfile.TemporaryDirectory(prefix="adaptune-orchestration-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        _opponent.warm_up(
            sys.executable, ["orchestrator.run.sweep", "orchestrator.scheduling.tuner", "trainables.engine.engine"]
        )
        small = _side("adaptune", SMALL, folder)
        tune = _side("tune", SMALL, folder)
        large = _side("adaptune", LARGE, folder)
    return {
        **_summary("", small),
        **_summary("tune_", tune),
        **_summary("large_", large),
        "ratio": tune["seconds"] / small["seconds"],
        "large_to_small_rate": _rate(large) / _rate(small),
    }


def _side(side: str, trials: int, folder: Path) -> dict[str, Any]:
    print(f"orchestration: {trials:,} trials by {side} ...", file=sys.stderr)
    place = folder / f"{side}-{trials}"
    command = [sys.executable, "-m", "benchmarks._noop_sweep", side, str(trials), str(place)]
    (event,) = _opponent.run(command, place, at=_opponent.ROOT).events
    return dict(event)


def _rate(side: dict[str, Any]) -> float:
    return float(side["trials"] / side["seconds"])


def _summary(prefix: str, side: dict[str, Any]) -> dict[str, Any]:
    start, end = side["memory_start_bytes"], side["memory_end_bytes"]
    known = start is not None and end is not None
    # From a tenth of the trials on, when all that is loaded once has been loaded.
    grown = (end - start) / 2**20 / (0.9 * side["trials"] / 1000) if known else None
    return {
        f"{prefix}trials_per_second": _rate(side),
        **{f"{prefix}memory_{mark}_bytes": side[f"memory_{mark}_bytes"] for mark in ("start", "middle", "end")},
        f"{prefix}memory_growth_mib_per_1000_trials": grown,
    }
