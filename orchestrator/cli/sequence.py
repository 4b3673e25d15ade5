"""`adaptune sequence`: tasks one after another, and what later ones leave of earlier ones."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.sequences import SequenceResults
from orchestrator.analysis.text import tables
from orchestrator.analysis.text.forgetting import matrix_tables, measures_table, unchanged_sentence
from orchestrator.cli.screen import console
from orchestrator.scheduling.early_end import Interrupted
from orchestrator.spec.sweep_file import apply_overrides, read_sweep
from trainables.data.paths import given_path
from trainables.faults import FaultsError

_METHODS = "adapter,full_finetuning"
_MOST_SEEDS = 10_000
_FILES = (".json", ".py", ".yaml", ".yml")


def declared(
    tasks: Sequence[str],
    *,
    overrides: Sequence[str],
    methods: str | None,
    sequential: str | None,
    backbone: str | None,
    epochs: int | None,
    learning_rate: str | None,
    seeds: str | None,
    shuffle: bool,
    max_train_rows: int | None,
    max_evaluation_rows: int | None,
    name: str | None,
) -> Any:
    """The values of a sequence: of its file or of the tasks named, with what the options say put in their place.

    Raises `FaultsError` with every fault of the command line.
    """
    faults: list[str] = []
    values: dict[str, Any]
    if any(Path(task).suffix in _FILES for task in tasks):
        if len(tasks) > 1:
            raise FaultsError("sequence", [f"must be tasks, or one file, but got {' '.join(tasks)}"])
        read = read_sweep(tasks[0])
        if not isinstance(read, dict):
            return read  # what is wrong with it is said when it is planned
        values = dict(read)
    else:
        values = {"name": "sequence", "tasks": list(tasks), "methods": _METHODS.split(",")}
    if methods is not None:
        values["methods"] = _names(methods)
    given = {
        "name": name,
        "sequential": None if sequential is None else _names(sequential),
        "backbone": backbone,
        "seeds": None if seeds is None else _seeds(seeds, faults),
        "shuffle": shuffle or None,
        "max_train_rows": max_train_rows,
        "max_evaluation_rows": max_evaluation_rows,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    more = [] if epochs is None else [f"num_epochs={epochs}"]
    if learning_rate is not None:
        more += _rates(learning_rate)
    if faults:
        raise FaultsError("sequence", faults)
    return apply_overrides(values, [*more, *overrides])


def show_sequence(values: Any, *, store: str | None, device: str | None, take_over: bool, as_json: bool) -> int:
    """Run a sequence and show what came of it. Exit status 1 where a training failed."""
    from orchestrator.run.sequence import run_sequence

    screen = console(stderr=as_json)
    try:
        results = run_sequence(
            values,
            store,
            device=device,
            tell=lambda line: screen.print(line, soft_wrap=True),
            take_over=take_over,
        )
    except KeyboardInterrupt as stop:
        words = "what is finished is kept; the same command goes on from there"
        raise Interrupted(getattr(stop, "number", signal.SIGINT), words) from None
    folder = str(given_path("sequence", "--store", store)) if store else f"sweeps/{values['name']}"
    failed = results.failed()
    if as_json:
        print(json.dumps(_answer(results, folder)))
    elif len(results.cells()):
        matrix = results.matrix()
        for table in (measures_table(results.measures()), *matrix_tables(matrix)):
            screen.print()
            screen.print(tables.to_rich(table))
        screen.print(unchanged_sentence(matrix), soft_wrap=True)
        for kind in ("png", "md"):
            screen.print(str(Path(folder) / f"forgetting.{kind}"), soft_wrap=True)
    for sentence in failed:
        screen.print(f"failed: {sentence}", soft_wrap=True)
    return 1 if failed else 0


def _answer(results: SequenceResults, folder: str) -> dict[str, Any]:
    return {
        "folder": folder,
        "measures": results.measures().to_pylist(),
        "matrix": results.matrix().to_pylist(),
        "failed": results.failed(),
    }


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _seeds(text: str, faults: list[str]) -> list[int]:
    """0,7 as they are; a number alone is how many."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        faults.append(f"--seeds: must be a number, or a list such as 0,7, but got {text!r}")
        return [0]
    if len(numbers) > 1 or "," in text:
        return numbers
    if numbers[0] > _MOST_SEEDS:
        faults.append(f"--seeds: must be at most {_MOST_SEEDS:,} seeds, but got {text[:40]}")
        return [0]
    return list(range(numbers[0]))


def _rates(text: str) -> list[str]:
    """Overrides for a rate of all methods, or one a method."""
    if "=" not in text:
        return [f"learning_rate={text}"]
    return [
        f"methods.{method.strip()}.learning_rate={rate.strip()}"
        for method, _, rate in (part.partition("=") for part in text.split(","))
    ]
