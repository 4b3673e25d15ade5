"""A tiny sweep in an environment that adaptune's wheel was installed into; run by that environment's Python.

The working folder takes the sweep. The one argument is the backbone. Fails where anything of adaptune comes from
somewhere else than the environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import adaptune


def main(backbone: str) -> None:
    place = Path(adaptune.__file__)
    assert place.is_relative_to(sys.prefix), f"adaptune must come from {sys.prefix}, but it is at {place}"
    sweep = {
        "name": "tiny",
        "backbone": backbone,
        "tasks": ["toy/sentiment"],
        "seeds": [0],
        "space": {"num_epochs": 1, "max_length": 16},
        "methods": [{"adapter": {"adapter_size": 2}}],
    }
    Path("tiny.json").write_text(json.dumps(sweep), encoding="utf-8")
    command = str(Path(sys.executable).parent / "adaptune")
    subprocess.run([command, "run", "tiny.json"], check=True)
    results = adaptune.load_results("sweeps/tiny")
    (trial,) = results.trials().to_pylist()
    assert trial["status"] == "completed", trial["error"]
    assert Path("sweeps/tiny/report/report.html").stat().st_size > 0  # its template came along
    again = adaptune.run_sweep("tiny.json")  # nothing is left to train
    assert again.counts() == results.counts()
    shown = {"version": adaptune.__version__, "place": str(place.parent), "validation_score": trial["validation_score"]}
    sys.stdout.write(json.dumps(shown) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
