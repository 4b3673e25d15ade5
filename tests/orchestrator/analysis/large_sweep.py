"""A sweep as large as a paper's: twelve tasks, ten methods, several sizes, rates and seeds, and long names."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.results import Results

TASKS = (
    "glue/cola", "glue/sst2", "glue/mrpc", "glue/stsb", "trec", "sms_spam", "crowdflower/corporate_messaging",
    "crowdflower/us_economic_performance_and_news_relevance", "20_newsgroups", "customer_complaint_database",
    "news_aggregator_dataset", "data/tickets & mails_100%",
)  # fmt: skip
BACKBONE_PARAMS, ENCODER_PARAMS = 109_482_240, 85_054_464
HIDDEN, LAYERS = 768, 12
NORMS = 4 * HIDDEN * LAYERS + 2 * HIDDEN
SIZES: dict[str, list[tuple[dict[str, Any], int]]] = {
    "adapter": [
        ({"adapter_size": m}, 2 * LAYERS * (2 * m * HIDDEN + m + HIDDEN) + NORMS) for m in (2, 8, 64, 256)
    ],
    "top_layers": [({"num_layers": n}, n * 7_087_872 + 590_592) for n in (1, 3, 9)],
    "full_finetuning": [({}, BACKBONE_PARAMS)],
    "layernorm": [({}, NORMS)],
    "lora": [({"rank": r}, 4 * r * HIDDEN * LAYERS) for r in (4, 16)],
    "bitfit": [({}, 102_912)],
    "linear_probe": [({}, 0)],
    "feature_based": [({}, 592_128)],
    "pals": [({}, 1_819_836)],
    "adapterdrop": [({"adapter_size": 64, "num_dropped_layers": 5}, 1_410_304)],
}  # fmt: skip
RATES = (1e-4, 3e-4, 1e-3)
EPOCHS = 6

PROVENANCE = {
    "adaptune": "0.1.0",
    "backbone_params": str(BACKBONE_PARAMS),
    "commit": "0123abc",
    "device": "NVIDIA H100 80GB HBM3",
    "encoder_params": str(ENCODER_PARAMS),
    "python": "3.11.2",
    "torch": "2.13.0",
}

COLUMNS = pa.schema(
    {
        **dict.fromkeys(("sweep", "trial_id", "config_id", "task", "backbone", "method"), pa.string()),
        "seed": pa.int64(),
        "status": pa.string(),
        **dict.fromkeys(("adapter_size", "num_layers", "rank", "num_dropped_layers"), pa.int64()),
        "learning_rate": pa.float64(),
        **dict.fromkeys(("num_epochs", "batch_size"), pa.int64()),
        **dict.fromkeys(("trained_params", "trained_params_without_head", "total_params"), pa.int64()),
        "metric": pa.string(),
        **dict.fromkeys(("validation_score", "test_score", "duration_s"), pa.float64()),
        "best_epoch": pa.int64(),
        **dict.fromkeys(("started_at", "engine", "error"), pa.string()),
        "peak_memory_bytes": pa.int64(),
        "provenance": pa.struct(
            [
                (key, pa.string())
                for key in (
                    "adaptune",
                    "backbone_params",
                    "commit",
                    "device",
                    "encoder_params",
                    "python",
                    "rows",
                    "torch",
                )
            ]
        ),
        **dict.fromkeys(("validation/loss", "test/accuracy"), pa.float64()),
        "schema_version": pa.int64(),
    }
)
EPOCH_COLUMNS = pa.schema(
    {
        **dict.fromkeys(("sweep", "trial_id", "config_id", "task", "method"), pa.string()),
        **dict.fromkeys(("seed", "epoch", "step"), pa.int64()),
        **dict.fromkeys(("train/loss", "validation_score", "duration_s"), pa.float64()),
    }
)


def large_rows(
    tasks: Sequence[str] = TASKS, methods: Sequence[str] = tuple(SIZES), seeds: Sequence[int] = (0, 1, 2)
) -> list[dict[str, Any]]:
    """A row per trial. `glue/stsb` is a regression; the last task has no test split; a few trials failed."""
    rows = []
    for task, method in itertools.product(tasks, methods):
        for (options, size), rate, seed in itertools.product(SIZES[method], RATES, seeds):
            rows.append(_row(task, method, options, size, rate, seed))
    return rows


def _row(task: str, method: str, options: dict[str, Any], size: int, rate: float, seed: int) -> dict[str, Any]:
    config_id = hashlib.sha256(repr((task, method, options, rate)).encode()).hexdigest()[:16]
    rng = np.random.default_rng([int(config_id[:8], 16), seed])
    of_task = np.random.default_rng(TASKS.index(task) if task in TASKS else 99)
    level, need = of_task.uniform(0.5, 0.95), of_task.uniform(0.01, 0.12)
    strength = {"adapter": 4.5, "lora": 4.0, "layernorm": 1.3, "linear_probe": 0.8}.get(method, 1.5)
    lost = need * max(0.0, math.log10(BACKBONE_PARAMS / max(size, 2_000))) ** 1.3 / 4 / strength
    tuned = 1e-4 if method in ("full_finetuning", "top_layers") else 1e-3
    lost += 0.02 * abs(math.log10(rate / tuned))
    validation, test = np.clip(level - lost + rng.normal(0, 0.006, 2), 0, 1).tolist()
    head = 2 * (HIDDEN + 1)
    adds = 0 if method in ("full_finetuning", "top_layers", "layernorm", "bitfit", "linear_probe") else size
    failed = (task, method, seed) == ("trec", "lora", 2)
    return {
        "sweep": "large",
        "trial_id": f"{config_id}-{seed}",
        "config_id": config_id,
        "task": task,
        "backbone": "bert-base-uncased",
        "method": method,
        "seed": seed,
        "status": "failed" if failed else "completed",
        **options,
        "learning_rate": rate,
        "num_epochs": EPOCHS,
        "batch_size": 32,
        "trained_params": None if failed else size + head,
        "trained_params_without_head": None if failed else size,
        "total_params": None if failed else BACKBONE_PARAMS + adds + head,
        "metric": None if failed else "pearson" if task == "glue/stsb" else "accuracy",
        "validation_score": None if failed else validation,
        "test_score": None if failed or task == TASKS[-1] else test,
        "duration_s": 20 + size / 2e6 + 5 * rng.random(),
        "best_epoch": None if failed else EPOCHS,
        "started_at": "2025-11-20T09:00:00+00:00",
        "engine": "host-a/cuda:0",
        "error": "RuntimeError: loss is nan" if failed else None,
        "peak_memory_bytes": 2_000_000_000,
        "provenance": PROVENANCE,
        "validation/loss": None if failed else 0.4,
        "schema_version": 1,
    }


def large_results(rows: Sequence[dict[str, Any]]) -> Results:
    """`rows` as results, with an epoch table in which scores rise towards the trial's."""
    epochs = [
        {
            **{name: row[name] for name in ("sweep", "trial_id", "config_id", "task", "method", "seed")},
            "epoch": epoch,
            "step": 100 * epoch,
            "train/loss": 1 / epoch,
            "validation_score": row["validation_score"] * (1 - 0.3 * math.exp(-epoch) + 0.3 * math.exp(-EPOCHS)),
            "duration_s": 3.0,
        }
        for row in rows
        if row["validation_score"] is not None
        for epoch in range(1, EPOCHS + 1)
    ]
    return Results(pa.Table.from_pylist(list(rows), schema=COLUMNS), pa.Table.from_pylist(epochs, schema=EPOCH_COLUMNS))
