"""What the run of a sweep shows beside its spec: the best of each task, and what its engines did. Knows no MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialRecord
from orchestrator.tracking.configuration import plus_minus
from orchestrator.tracking.naming import backbones_of
from orchestrator.tracking.run_fields import Point, end_ms, key_part

# The prefix of what MLflow's page shows under "System metrics".
_SYSTEM = "system"

# A row of the best of a task, with the names and meanings of the columns of `Results.best`.
Best = Mapping[str, Any]
_SCORES = ("validation_mean", "validation_sem", "test_mean", "test_sem")


def best_points(best: Sequence[Best], time_ms: int) -> list[Point]:
    """The scores of each task's best configuration: `best_test/<task>`, `best_test_sem/<task>`, and of validation."""
    names = {score: f"best_{score.removesuffix('_mean')}" for score in _SCORES}
    return [
        Point(f"{names[score]}/{key_part(row['task'])}", float(row[score]), time_ms, 0)
        for row in best
        for score in _SCORES
        if row.get(score) is not None
    ]


def best_tags(best: Sequence[Best], run_of: Callable[[str], str | None]) -> dict[str, str]:
    """`adaptune.best/<task>`: the id of the run of each task's best configuration. `run_of`: config_id -> run id."""
    found = {row["task"]: run_of(row["config_id"]) for row in best}
    return {f"adaptune.best/{key_part(task)}": run_id for task, run_id in found.items() if run_id}


def sweep_note(spec: Any, best: Sequence[Best], link: Callable[[str], str | None], report: str | None) -> str:
    """The sweep's description in Markdown.

    Args:
        link: config_id -> the configuration's name as a link to its run; None where it has no run.
        report: the address of the report among the run's artifacts; None where there is none.
    """
    lines = [describe_sweep(spec), ""]
    over = "replicates" if any(row.get("num_folds") for row in best) else "seeds"
    if best:
        lines += [
            f"Per task the best configuration, chosen by its mean validation score over {over} (± standard error):",
            "",
            f"| task | best configuration | test | validation | metric | {over} | tried | trained parameters |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for row in best:
        cells = [
            _cell(row["task"]),
            link(row["config_id"]) or _cell(f"{row['method']}"),
            plus_minus(row["test_mean"], row["test_sem"]),
            plus_minus(row["validation_mean"], row["validation_sem"]),
            _cell(row["metric"] or ""),
            str(row["num_seeds"]),
            str(row["num_configs_tried"]),
            "" if row["trained_params"] is None else f"{row['trained_params']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if report:
        lines += ["", f"[Report]({report})"]
    return "\n".join(lines)


def describe_sweep(spec: Any) -> str:
    """A sweep in one line of Markdown, as far as its spec's JSON says."""
    entries = spec if isinstance(spec, dict) else {}
    counts = [
        f"{len(entries[name])} {name.removesuffix('s') if len(entries[name]) == 1 else name}"
        for name in ("tasks", "methods", "seeds")
        if entries.get(name)
    ]
    counts += [f"{entries['folds']} folds"] if entries.get("folds") else []
    search = entries.get("search")
    algorithm = search.get("algorithm") if isinstance(search, dict) else None
    backbones = backbones_of(entries)
    words = [
        *counts,
        *([f"backbone{'' if len(backbones) == 1 else 's'} {' and '.join(backbones)}"] if backbones else []),
    ]
    words += [f"{algorithm} search"] if algorithm else []
    return f"Sweep **{entries.get('name', '')}**" + (f": {', '.join(words)}." if words else ".")


def linked(name: str, address: str) -> str:
    """A link in Markdown, for a table's cell."""
    return f"[{_cell(name)}]({address})"


def _cell(words: str) -> str:
    """Text as a table's cell of Markdown shows it literally."""
    return "".join(f"\\{char}" if char in "\\|[]<>*_`" else char for char in words).replace("\n", " ")


class EngineLog:
    """What each engine did, for the sweep's run: `system/<engine>/...`, once for all trials.

    From looks at the engines, which come about once a second: `examples_per_second`, of all trials of the engine in
    training, and `trials_in_training`, as means over the interval; `busy_percentage`, the share of the interval in
    which it trained. From the records: `peak_memory_bytes`, the most of any trial so far.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._looked_s = 0.0
        self._last: Sequence[EngineStatus] = ()
        self._sums: dict[str, list[float]] = {}  # engine -> seconds busy, trial seconds, examples, seconds with a rate
        self._peaks: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._ended_ms = 0

    def look(self, engines: Sequence[EngineStatus], now_s: float) -> None:
        """What the engines are doing from now on; until now they did what the last look said."""
        self._count(now_s)
        self._last = tuple(engines)

    def ended(self, record: TrialRecord) -> None:
        """A trial has ended."""
        self._ended_ms = max(self._ended_ms, end_ms(record))
        if record.engine is not None and record.peak_memory_bytes is not None:
            self._peaks[record.engine] = max(self._peaks.get(record.engine, 0), record.peak_memory_bytes)

    def take(self, now_s: float, now_ms: int) -> list[Point]:
        """The points of the interval that ends now, and the beginning of the next."""
        self._count(now_s)
        points = []
        seconds = now_s - self._began_s if self._began_s is not None else 0.0
        if seconds > 0:
            for engine, (busy, trials, examples, rated) in self._sums.items():
                values = {"busy_percentage": 100 * busy / seconds, "trials_in_training": trials / seconds}
                values |= {"examples_per_second": examples / rated} if rated else {}
                points += [Point(_key(engine, name), value, now_ms, 0) for name, value in values.items()]
        points += [
            Point(_key(engine, "peak_memory_bytes"), float(peak), self._ended_ms, 0)
            for engine, peak in self._peaks.items()
            if self._shown.get(engine) != peak
        ]
        self._shown = dict(self._peaks)
        self._sums = {engine: [0.0] * 4 for engine in self._sums}
        self._began_s = now_s if self._began_s is not None else None
        return points

    def _count(self, now_s: float) -> None:
        if self._began_s is None:
            self._began_s = self._looked_s = now_s
        passed, self._looked_s = now_s - self._looked_s, now_s
        for engine in self._last:
            sums = self._sums.setdefault(engine.engine, [0.0] * 4)
            sums[0] += passed if engine.num_trials else 0.0
            sums[1] += passed * engine.num_trials
            if engine.num_trials and engine.examples_per_second is not None:
                sums[2] += passed * engine.examples_per_second
                sums[3] += passed


def _key(engine: str, name: str) -> str:
    return f"{_SYSTEM}/{key_part(engine)}/{name}"
