"""A sequence that was run, and what it says: what each task scored after every later one, and what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.statistics import continual
from orchestrator.analysis.statistics.intervals import mean_and_standard_error

_TEXT, _WHOLE, _NUMBER = pa.string(), pa.int64(), pa.float64()
_WHO = {"sequence": _TEXT, "backbone": _TEXT, "method": _TEXT, "is_sequential": pa.bool_(), "seed": _WHOLE}
CELLS = pa.schema(
    {
        **_WHO,
        "after": _WHOLE,  # the place of the task trained last, from 1
        "after_task": _TEXT,
        "place": _WHOLE,  # of the task that is evaluated, from 1
        "task": _TEXT,
        **dict.fromkeys(("split", "metric"), _TEXT),
        **dict.fromkeys(("score", "loss"), _NUMBER),
        "num_rows": _WHOLE,
        **dict.fromkeys(("outputs_sha256", "step_id", "evaluated_at"), _TEXT),
    }
)
TRAININGS = pa.schema(
    {
        **_WHO,
        "place": _WHOLE,
        **dict.fromkeys(("task", "step_id", "status", "metric"), _TEXT),
        **dict.fromkeys(("validation_score", "test_score"), _NUMBER),
        **dict.fromkeys(("trained_params", "trained_params_without_head", "total_params"), _WHOLE),
        "duration_s": _NUMBER,
        **dict.fromkeys(("started_at", "error", "config", "provenance"), _TEXT),
    }
)
MATRIX = pa.schema(
    {
        "method": _TEXT,
        "is_sequential": pa.bool_(),
        "after": _WHOLE,
        "after_task": _TEXT,  # null where seeds have orders of their own
        "place": _WHOLE,
        "task": _TEXT,  # likewise
        **dict.fromkeys(("split", "metric"), _TEXT),
        **dict.fromkeys(
            ("mean", "sem", "change", "change_sem"), _NUMBER
        ),  # change: less the score right after training
        "is_unchanged": pa.bool_(),  # whether every output of every seed is, to the last bit, what it was then
        "num_seeds": _WHOLE,
    }
)
MEASURES = pa.schema(
    {
        "method": _TEXT,
        "is_sequential": pa.bool_(),
        "measure": _TEXT,
        "mean": _NUMBER,
        "sem": _NUMBER,
        "num_seeds": _WHOLE,
    }
)
MEASURED: dict[str, Callable[[np.ndarray], float]] = {
    "average_score": continual.average_score,
    "learning_score": continual.learning_score,
    "forgetting": continual.forgetting,
    "backward_transfer": continual.backward_transfer,
}


class SequenceResults:
    """What came of a sequence, as `adaptune.run_sequence` gives it. Every answer is a pyarrow table.

    Args:
        cells: a row an evaluation, with the columns of `CELLS`.
        trainings: a row a training, with the columns of `TRAININGS`; without them all tasks evaluated count as all.
    """

    def __init__(self, cells: pa.Table, trainings: pa.Table | None = None) -> None:
        self._cells = cells
        self._trainings = TRAININGS.empty_table() if trainings is None else trainings
        rows = cells.to_pylist()
        self._by_method: dict[str, dict[int, dict[tuple[int, int], dict[str, Any]]]] = {}
        for row in rows:
            of_seed = self._by_method.setdefault(row["method"], {}).setdefault(row["seed"], {})
            of_seed[row["after"], row["place"]] = row
        self._num_tasks = max([0, *self._trainings["place"].to_pylist(), *cells["after"].to_pylist()])

    def cells(self) -> pa.Table:
        """A row per evaluation: method, seed, the task trained last, the task evaluated, its score, and the SHA-256 of
        all outputs.
        """
        return self._cells

    def trainings(self) -> pa.Table:
        """A row per training: method, seed, task, status, scores, trained parameters, configuration, provenance."""
        return self._trainings

    def matrix(self) -> pa.Table:
        """A row per method, task trained last and task evaluated: mean score and s.e.m. over seeds, and the change.

        The change is since right after the task was trained. `is_unchanged` says whether the outputs of all rows are
        still what they were then, to the last bit and with every seed.
        """
        found = []
        for method, seeds in self._by_method.items():
            for after, place in sorted({key for of_seed in seeds.values() for key in of_seed}):
                here = [of_seed for of_seed in seeds.values() if (after, place) in of_seed]
                rows = [of_seed[after, place] for of_seed in here]
                # Where the evaluation right after training is missing, so is the change.
                learned = [of_seed.get((place, place), of_seed[after, place]) for of_seed in here]
                mean, sem = mean_and_standard_error([row["score"] for row in rows])
                change, change_sem = mean_and_standard_error(
                    [row["score"] - then["score"] for row, then in zip(rows, learned, strict=True)]
                )
                found.append(
                    {
                        "method": method,
                        "is_sequential": rows[0]["is_sequential"],
                        "after": after,
                        "place": place,
                        **{
                            name: _only(row[name] for row in rows) for name in ("after_task", "task", "split", "metric")
                        },
                        **{"mean": mean, "sem": sem, "change": change, "change_sem": change_sem},
                        "is_unchanged": all(
                            row["outputs_sha256"] == then["outputs_sha256"]
                            for row, then in zip(rows, learned, strict=True)
                        ),
                        "num_seeds": len(rows),
                    }
                )
        return pa.Table.from_pylist(found, schema=MATRIX)

    def measures(self) -> pa.Table:
        """A row per method and measure, as mean and s.e.m. over the seeds whose every task was trained and evaluated.

        `average_score` after the last task, `learning_score` right after each, `forgetting` and `backward_transfer`;
        `orchestrator.analysis.statistics.continual` defines them.
        """
        found = []
        for method, matrices in self._whole_matrices():
            is_sequential = next(iter(next(iter(self._by_method[method].values())).values()))["is_sequential"]
            for measure, compute in MEASURED.items():
                mean, sem = mean_and_standard_error([compute(matrix) for matrix in matrices])
                found.append(
                    {
                        "method": method,
                        "is_sequential": is_sequential,
                        **{"measure": measure, "mean": mean, "sem": sem, "num_seeds": len(matrices)},
                    }
                )
        return pa.Table.from_pylist(found, schema=MEASURES)

    def failed(self) -> list[str]:
        """What of the trainings failed, a sentence each."""
        rows = [row for row in self._trainings.to_pylist() if row["status"] != "completed"]
        reasons = [(row["error"] or "unknown").strip().splitlines()[-1] for row in rows]
        return [
            f"{row['method']} on {row['task']}, seed {row['seed']}: {reason}"
            for row, reason in zip(rows, reasons, strict=True)
        ]

    def _whole_matrices(self) -> Iterator[tuple[str, list[np.ndarray]]]:
        for method, seeds in self._by_method.items():
            matrices = []
            for of_seed in seeds.values():
                matrix = np.full((self._num_tasks, self._num_tasks), np.nan)
                for (after, place), row in of_seed.items():
                    matrix[after - 1, place - 1] = row["score"]
                if self._num_tasks > 1 and np.isfinite(matrix[np.tril_indices(self._num_tasks)]).all():
                    matrices.append(matrix)
            if matrices:
                yield method, matrices


def _only(values: Iterator[Any]) -> Any:
    """The one value; None where there are several."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
