"""What serving ten tasks over one backbone costs: memory, throughput of mixed batches, and whether answers stay equal.

Ten adapters of five methods and several sizes over MiniLM (`minilm`, or ADAPTUNE_BENCH_BANK_BACKBONE), with heads of 2
to 20 classes and random weights: speed and memory do not depend on their values. Texts are random words of 4 to 40
word pieces. Each adapter alone answers a batch of its own; together they answer the ten batches at once, their rows in
turn. One thread, and seconds of the processor rather than of the clock, so that what else the machine does counts
little; figures are medians of rounds in which both are measured one after the other.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.backbones.loading import Backbone, load_backbone
from trainables.config import Scalar, TrialConfig
from trainables.device.memory import release_unused, used_bytes
from trainables.inference.bank import AdapterBank
from trainables.inference.saved_adapter import load, own_tensors, save
from trainables.task import TaskInfo
from trainables.training.model import build_model

# Method, options and classes of each task.
TASKS: tuple[tuple[str, dict[str, Scalar], int], ...] = (
    ("adapter", {"adapter_size": 8}, 2),
    ("adapter", {"adapter_size": 64}, 4),
    ("adapter", {"adapter_size": 16, "placement": "pfeiffer"}, 20),
    ("adapter", {"adapter_size": 64, "train_layernorms": False}, 3),
    ("lora", {"rank": 8}, 2),
    ("lora", {"rank": 16, "targets": "query,key,value,output"}, 6),
    ("bitfit", {}, 2),
    ("layernorm", {}, 5),
    ("linear_probe", {}, 13),
    ("linear_probe", {}, 2),
)
ROWS_A_TASK = (1, 8, 24)
ROUNDS = 5


def measure() -> Mapping[str, float]:
    """Every quantity; rows are those of one task."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    name = os.environ.get("ADAPTUNE_BENCH_BANK_BACKBONE", "minilm")
    with tempfile.TemporaryDirectory() as folder:
        sizes = write_adapters(name, Path(folder))
        results = _memory(name, Path(folder), sizes)
        bank = filled(name, Path(folder))
        alone = {task: load(Path(folder) / task, backbone=bank.backbone) for task in bank.adapters}
        for rows in ROWS_A_TASK:
            results |= _throughput(bank, alone, rows)
    torch.set_num_threads(before)
    return results


def write_adapters(backbone: str, folder: Path) -> int:
    """Save an adapter for each of `TASKS`, in folders `task0` and so on; returns the bytes of their weights."""
    loaded = load_backbone(backbone, device=torch.device("cpu"), compute_dtype=torch.float32)
    for number, (method, options, classes) in enumerate(TASKS):
        _write(loaded, backbone, folder / f"task{number}", TrialConfig(
            task=f"task{number}", backbone=backbone, method=method, method_options=options, seed=number
        ), classes)  # fmt: skip
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))


def _write(loaded: Backbone, backbone: str, folder: Path, config: TrialConfig, classes: int) -> None:
    info = TaskInfo(
        name=config.task,
        kind="classification",
        pair=False,
        num_labels=classes,
        label_names=(),
        metric="accuracy",
        source="made",
    )
    model = build_model(loaded.encoder, [config], classes)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        for tensor in own_tensors(model).values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    save(folder, model, config, info, backbone_fingerprint=str(loaded.info.fingerprint), scores={})


def filled(backbone: str, folder: Path) -> AdapterBank:
    """A bank of what `write_adapters` wrote."""
    bank = AdapterBank(backbone)
    for number in range(len(TASKS)):
        bank.add(f"task{number}", folder / f"task{number}")
    return bank


def texts_of(rows: int, seed: int) -> list[str]:
    """Random words, a word piece each."""
    rng = np.random.default_rng(seed)
    words = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school"]
    return [" ".join(rng.choice(words, size=rng.integers(2, 39))) for _ in range(rows)]


def _memory(backbone: str, folder: Path, adapter_bytes: int) -> dict[str, float]:
    """What a bank of ten holds over a process without one, against the bytes of one backbone and of the adapters.

    Of the same numbers read a second time, so that what libraries set up once is not counted.
    """
    bank = filled(backbone, folder)
    bank.predict([(name, "a text") for name in bank.adapters])
    held = bank  # the first stays, or its memory would be used again
    before = _settled()
    second = filled(backbone, folder)
    second.predict([(name, "a text") for name in second.adapters])
    used = _settled() - before
    one = sum(p.numel() * p.element_size() for p in second.backbone.encoder.parameters())
    del held
    return {
        "bank_bytes": float(used),
        "backbone_bytes": float(one),
        "adapters_bytes": float(adapter_bytes),
        "memory_over_backbone_and_adapters": used / (one + adapter_bytes),
        "memory_without_adapters_over_backbone": (used - adapter_bytes) / one,
    }


def _settled() -> int:
    gc.collect()
    release_unused()
    return used_bytes(torch.device("cpu")) or 0


def _throughput(bank: AdapterBank, alone: Mapping[str, Any], rows: int) -> dict[str, float]:
    names = list(bank.adapters)
    texts = {name: texts_of(rows, seed) for seed, name in enumerate(names)}
    mixed = [(name, texts[name][row]) for row in range(rows) for name in names]

    def apart() -> list[np.ndarray]:
        return [alone[name].logits(texts[name]) for name in names]

    outputs = np.array([len(row) for row in bank.logits(mixed)])
    expected = apart()
    found = bank.logits(mixed)
    difference = max(
        float(np.abs(np.stack(found[place :: len(names)]) - expected[place]).max()) for place in range(len(names))
    )
    assert outputs.max() == max(classes for _, _, classes in TASKS)
    apart_s, mixed_s = [], []
    for _ in range(ROUNDS):
        apart_s.append(_seconds(apart))
        mixed_s.append(_seconds(lambda: bank.logits(mixed)))
    prefix = f"rows{rows}"
    return {
        f"{prefix}.alone_texts_per_cpu_second": len(mixed) / statistics.median(apart_s),
        f"{prefix}.mixed_texts_per_cpu_second": len(mixed) / statistics.median(mixed_s),
        f"{prefix}.mixed_over_alone": statistics.median(a / m for a, m in zip(apart_s, mixed_s, strict=True)),
        f"{prefix}.largest_difference": difference,
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
