"""The sweep of a round: real engines over a tiny BERT, on tasks of which a few trials a second can be trained."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Its loss leaves what float32 can hold within an epoch. Such a trial fails by itself, and is not tried again.
DIVERGING = 1e30
TASKS = {"opinion": ("good", "bad"), "number": ("w1", "w2")}  # the words that decide the label


@dataclass(frozen=True)
class Ground:
    """A folder with what every round reads, and none writes."""

    home: Path
    rows: int = 256
    num_epochs: int = 16
    # At higher ones what a pack changes in the order of sums, 1e-7 of a loss, has grown to 1e-3 by the last epoch.
    rates: tuple[float, ...] = (2.5e-3, 5e-3, 1e-2)

    def write(self) -> None:
        """Write the backbone and the tasks. Takes a few seconds, most of them imports."""
        from tests.compiled import cache_with_kernels
        from tests.orchestrator.conftest import write_backbone

        write_backbone(self.home / "backbone")
        cache_with_kernels(self.home / "cache")
        for name, words in TASKS.items():
            _write_task(self.home / name, words, self.rows)

    def sweep_file(self, folder: Path, name: str) -> Path:
        """Write the sweep under a name of its own; what decides its trials' outcomes is always the same."""
        path = folder / "sweep.yaml"
        path.write_text(json.dumps(self._values(name)), encoding="utf-8")  # JSON is YAML too
        return path

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ADAPTUNE_CACHE": str(self.home / "cache"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def _values(self, name: str) -> Mapping[str, Any]:
        return {
            "name": name,
            "backbone": str(self.home / "backbone"),
            "tasks": [str(self.home / task) for task in TASKS],
            "seeds": [0],
            "search": {"algorithm": "grid", "max_concurrent_trials": 4},  # each is a process that takes time to start
            "space": {"num_epochs": self.num_epochs, "batch_size": 16, "precision": "fp32", "learning_rate": 1e-2},
            "methods": [
                {"adapter": {"adapter_size": {"grid": [1, 2]}, "learning_rate": {"grid": list(self.rates)}}},
                {"top_layers": {"num_layers": 1}},  # in packs of one
                "layernorm",
                {"adapter": {"adapter_size": 1, "learning_rate": DIVERGING}},
            ],
        }


def _write_task(folder: Path, words: tuple[str, str], rows: int) -> None:
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("validation", 64), ("test", 64)):
        lines = []
        for row in range(count):
            text = f"w{3 + row % 4} {words[row % 2]} w{3 + row % 5} n{row}{split[0]}"
            lines.append(json.dumps({"text_a": text, "label": row % 2}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
