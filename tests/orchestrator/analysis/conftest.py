"""A synthetic sweep, shaped like a real one: what the store would hand to the analysis, without training anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.analysis.questions import inference_cost
from orchestrator.analysis.questions.ablation import tabulate
from orchestrator.analysis.results import Results

HIDDEN, LAYERS, TOTAL_PARAMS = 384, 6, 22_713_216
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("sweep", "trial_id", "config_id", "task", "backbone", "method"), pa.string()),
        "seed": pa.int64(),
        "status": pa.string(),
        **dict.fromkeys(("adapter_size", "num_layers"), pa.int64()),
        "learning_rate": pa.float64(),
        **dict.fromkeys(("num_epochs", "batch_size"), pa.int64()),
        "precision": pa.string(),
        **dict.fromkeys(("trained_params", "trained_params_without_head", "total_params"), pa.int64()),
        "metric": pa.string(),
        **dict.fromkeys(("validation_score", "test_score"), pa.float64()),
        "best_epoch": pa.int64(),
        **dict.fromkeys(("duration_s", "examples_per_second", "pack_size"), pa.float64()),
        "peak_memory_bytes": pa.int64(),
        **dict.fromkeys(("started_at", "engine", "error"), pa.string()),
        "provenance": pa.struct([(key, pa.string()) for key in ("commit", "data_fingerprint", "device", "torch")]),
        **dict.fromkeys(("validation/accuracy", "validation/loss", "test/accuracy"), pa.float64()),
        "schema_version": pa.int64(),
    }
)
EPOCHS_SCHEMA = pa.schema(
    {
        **dict.fromkeys(("sweep", "trial_id", "config_id", "task", "method"), pa.string()),
        **dict.fromkeys(("seed", "epoch", "step"), pa.int64()),
        **dict.fromkeys(("train/loss", "validation_score", "validation/accuracy", "duration_s"), pa.float64()),
    }
)


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    num_labels: int
    level: float  # what full fine-tuning scores
    need: float  # how much is lost with few trained parameters
    has_test: bool = True


TASKS = (
    Task(name="trec", num_labels=6, level=0.955, need=0.05),
    Task(name="sms_spam", num_labels=2, level=0.991, need=0.01),
    Task(name="corporate_messaging", num_labels=4, level=0.842, need=0.08),
    Task(name="glue/cola", num_labels=2, level=0.780, need=0.12, has_test=False),
)
OPTIONS: tuple[dict[str, Any], ...] = (
    *({"method": "adapter", "adapter_size": m, "learning_rate": lr} for m in (2, 8, 64) for lr in (3e-4, 1e-3)),
    *({"method": "top_layers", "num_layers": n, "learning_rate": 1e-4} for n in (1, 2, 6)),
    *({"method": "full_finetuning", "learning_rate": lr} for lr in (3e-5, 1e-4)),
    {"method": "layernorm", "learning_rate": 1e-3},
)


def params_without_head(options: dict[str, Any]) -> int:
    norms = (2 * LAYERS + 1) * 2 * HIDDEN
    match options["method"]:
        case "adapter":
            m = options["adapter_size"]
            return 2 * LAYERS * (2 * m * HIDDEN + m + HIDDEN) + norms
        case "top_layers":
            return options["num_layers"] * 1_774_464 + 147_840
        case "layernorm":
            return norms
    return TOTAL_PARAMS


def trial_row(task: Task, options: dict[str, Any], seed: int, **overrides: Any) -> dict[str, Any]:
    """A completed trial, with noise that depends on its identity alone."""
    config_id = hashlib.sha256(repr((task.name, sorted(options.items()))).encode()).hexdigest()[:16]
    rng = np.random.default_rng(int(config_id, 16) + seed)
    size = params_without_head(options)
    strength = {"adapter": 4.5, "layernorm": 1.3}.get(options["method"], 1.0)
    loss = task.need * max(0.0, math.log10(TOTAL_PARAMS / size)) ** 1.3 / 4 / strength
    loss += {3e-4: 0.004, 3e-5: 0.003}.get(options["learning_rate"], 0.0)
    validation, test = np.clip(task.level - loss + rng.normal(0, 0.004, 2), 0, 1).tolist()
    head = (HIDDEN + 1) * task.num_labels
    return {
        "sweep": "synthetic",
        "trial_id": f"{config_id}-{seed}",
        "config_id": config_id,
        "task": task.name,
        "backbone": "minilm",
        "seed": seed,
        "status": "completed",
        "num_epochs": 3,
        "batch_size": 32,
        "precision": "auto",
        **options,
        "trained_params": size + head,
        "trained_params_without_head": size,
        "total_params": TOTAL_PARAMS + head,
        "metric": "accuracy",
        "validation_score": validation,
        "test_score": test if task.has_test else None,
        "best_epoch": 3,
        "duration_s": 40.0 + size / 1e6,
        "examples_per_second": 180.0,
        "peak_memory_bytes": 900_000_000 + 12 * size,
        "started_at": "2025-11-20T09:00:00+00:00",
        "engine": "host-a/cpu",
        "provenance": {"commit": "0123abc", "data_fingerprint": f"f-{task.name}", "device": "cpu", "torch": "2.13.0"},
        "validation/accuracy": validation,
        "validation/loss": 0.3,
        "test/accuracy": test if task.has_test else None,
        "schema_version": 1,
        **overrides,
    }


UNMEASURED = {
    **dict.fromkeys(("trained_params", "trained_params_without_head", "total_params", "metric")),
    **dict.fromkeys(("validation_score", "test_score", "best_epoch")),
}
TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 7, in train\nRuntimeError: loss is <nan>\n'


def fail(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, **UNMEASURED, "status": "failed", "error": TRACEBACK}


def epochs_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    if row["validation_score"] is None:
        return []
    shared = {name: row[name] for name in ("sweep", "trial_id", "config_id", "task", "method", "seed")}
    gains = [(1, 0.9), (2, 0.97), (3, 1.0)]
    return [
        {**shared, "epoch": e, "step": 100 * e, "train/loss": 1 / e, "validation_score": g * row["validation_score"]}
        for e, g in gains
    ]


def sweep_rows(tasks: Sequence[Task] = TASKS, seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """4 tasks x 12 configurations x 3 seeds; two trials failed, both of configurations that would not have won."""
    rows = [trial_row(task, options, seed) for task in tasks for options in OPTIONS for seed in seeds]
    failed = {("trec", 2, 3e-4, 1), ("sms_spam", 8, 3e-4, 0)}
    return [
        fail(row) if (row["task"], row.get("adapter_size"), row["learning_rate"], row["seed"]) in failed else row
        for row in rows
    ]


def results_of(
    rows: Sequence[dict[str, Any]],
    plan: Sequence[dict[str, Any]] | None = None,
    ablations: pa.Table | None = None,
    data_warnings: Sequence[dict[str, str]] | None = None,
    inference_costs: pa.Table | None = None,
) -> Results:
    trials = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    epochs = pa.Table.from_pylist([epoch for row in rows for epoch in epochs_of(row)], schema=EPOCHS_SCHEMA)
    planned = None if plan is None else pa.table({"trial_id": [row["trial_id"] for row in plan]})
    odd = None if data_warnings is None else pa.Table.from_pylist(list(data_warnings))
    return Results(trials, epochs, planned, ablations, data_warnings=odd, inference_costs=inference_costs)


def costs_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """What answers of these trials' configurations take, each of its own kind, at two batch sizes."""
    kinds = {row["config_id"]: row for row in rows}
    costs = [
        {
            "backbone": row["backbone"],
            "method": row["method"],
            "options": json.dumps({"number": number}),
            "trained_params_without_head": row["trained_params_without_head"],
            "form": form,
            "batch_size": size,
            "latency_ms": size * (1.0 + number),
            "examples_per_second": 1000 / (1.0 + number),
            "times_backbone": 1.0 + number,
            "length": 32,
            "device": "a CPU",
            "precision": "float32",
            "num_threads": "2",
            "host": "here",
            "measured_at": "2026-01-02T03:04:05+00:00",
            "config_ids": [config_id],
        }
        for number, (config_id, row) in enumerate(kinds.items())
        for form in ("beside", "merged")
        for size in (1, 64)
    ]
    return pa.Table.from_pylist(costs, schema=inference_cost.SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Everything a test needs to make a sweep of its own."""

    tasks: tuple[Task, ...] = TASKS
    rows: Callable[..., list[dict[str, Any]]] = sweep_rows
    trial: Callable[..., dict[str, Any]] = trial_row
    fail: Callable[[dict[str, Any]], dict[str, Any]] = fail
    results: Callable[..., Results] = results_of

    def task(self, name: str, **changes: Any) -> Task:
        return dataclasses.replace(TASKS[0], name=name, **changes)

    def scored(
        self, options: dict[str, Any], validation: Sequence[float], task: str = "trec", **overrides: Any
    ) -> list[dict[str, Any]]:
        """A completed trial a score, with seeds 0, 1, ...; the test score is ten points below."""
        return [
            trial_row(self.task(task), options, seed, **{"validation_score": v, "test_score": v - 0.1, **overrides})
            for seed, v in enumerate(validation)
        ]


@pytest.fixture
def synthetic() -> Synthetic:
    return Synthetic()


@pytest.fixture(scope="session")
def finished() -> Results:
    """The whole synthetic sweep, which nothing can change."""
    return results_of(sweep_rows())


def ablation_of(
    task: str = "glue/cola", *, num_layers: int = 4, metric: str = "matthews_correlation", seed: int = 0
) -> pa.Table:
    """A trial's ablation on validation: a layer taken out costs twice its number in per cent of the accuracy."""
    from trainables.inference.ablation import AblatedSpan, Ablation  # torch, which few of these tests need

    regression = metric == "pearson"
    whole = {metric: 0.5, "loss": 0.4} | ({} if regression else {"accuracy": 0.8})
    spans = []
    for first, last in ((i, j) for i in range(num_layers) for j in range(i, num_layers)):
        lost = 0.016 * sum(range(first, last + 1))
        scores = {name: value + lost if name == "loss" else value - lost for name, value in whole.items()}
        spans.append(AblatedSpan(first_layer=first, last_layer=last, scores=scores))
    found = Ablation(metric=metric, num_layers=num_layers, whole=whole, spans=tuple(spans))
    trial = {**trial_row(TASKS[0], OPTIONS[0], seed), "task": task, "trial_id": f"t-{task}-{seed}"}
    return tabulate(found, trial, split="validation", hyperparameters=["adapter_size", "learning_rate"])


@pytest.fixture(scope="session")
def ablated() -> Callable[..., pa.Table]:
    return ablation_of
