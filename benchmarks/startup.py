"""How long a user waits for an answer that needs no training: the imports behind each command.

`adaptune --help` and `status` promise to load neither torch nor Ray; this is what the promise is worth.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 5
STATEMENTS = {
    "python_s": "pass",
    "cli_s": "import orchestrator.cli",
    "results_s": "from adaptune import load_results; load_results",
    "trainables_s": "import trainables.training.pack",
}


def measure() -> dict[str, float]:
    """Median seconds of five fresh interpreters each, files already in the page cache."""
    return {
        quantity: statistics.median(_seconds(code) for _ in range(REPEATS)) for quantity, code in STATEMENTS.items()
    }


def _seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began
