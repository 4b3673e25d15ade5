"""The same trials by transformers' Trainer on the same card: one process, and several at once.

Same rows, batch size, trained tensors, optimizer and clipping; the opponents' adapters are plain torch modules in
transformers' BERT, their LoRA is peft's (`opponent_models.py`), their Trainer is set up by someone who knows it
(`opponent_process.py`). LoRA is raced on the first backbone alone. Random weights of the same shape on both sides:
speed does not depend on them, and no score is told. What adaptune trains on the same rows is measured beside it, at
K = 1 and at as many trials as there are processes.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import NotMeasuredError
from benchmarks.gpu.clock import Deadline
from benchmarks.gpu.materials import backbone as backbone_for
from benchmarks.gpu.materials import write_task
from benchmarks.gpu.packs import MeasuredPack, encoder, lora_config, trial_config
from benchmarks.gpu.record import measured
from benchmarks.gpu.requirements import is_installed
from benchmarks.gpu.run import Run
from trainables.backbones.loading import load_backbone
from trainables.data.tokenized import TokenizedSplit, tokenize
from trainables.device.dtype import compute_dtype

ROOT = Path(__file__).parents[2]
Processes = Mapping[Path, subprocess.Popen[bytes]]  # by the folder of its own files
UNITS = {"examples_per_second": "examples/s"}
POLL_S = 0.05
OURS_EPOCHS = 20


def measure(run: Run) -> None:
    if not is_installed("accelerate"):
        raise NotMeasuredError("transformers' Trainer needs accelerate: pip install accelerate")
    rows, num_labels = _rows(run)
    lengths = rows.lengths
    run.note(f"{len(rows)} rows of {lengths.min()} to {lengths.max()} word pieces, {lengths.mean():.1f} on average")
    run.note("opponents: transformers' Trainer, bf16, group_by_length, plain torch adapters, random weights")
    raced = [("adapter", name) for name in run.sizes.backbones]
    if is_installed("peft"):
        run.note("opponents' LoRA: peft's, of queries and values")
        raced.append(("lora", next(iter(run.sizes.backbones))))
    for num_trials, (method, name) in itertools.product((1, run.sizes.processes), raced):
        _ours(run, rows, num_labels, method, name, num_trials)
    _opponents(run, rows, num_labels, raced)


def _rows(run: Run) -> tuple[TokenizedSplit, int]:
    """The training rows of the task, in word pieces."""
    task = write_task(run.scratch / "opponents-task", run.task, rows=None)
    configuration = next(iter(run.sizes.backbones.values()))
    rehearsed = run.device.type == "cpu"
    reference, _ = backbone_for(run.scratch / "backbone", configuration, task, rehearsed=rehearsed)
    loaded = load_backbone(reference, device=torch.device("cpu"), compute_dtype=torch.float32)
    assert loaded.tokenizer is not None
    splits = tokenize(task, loaded.tokenizer, str(loaded.info.fingerprint), 128, run.scratch / "cache")
    return splits["train"], task.info.num_labels


def _opponents(run: Run, rows: TokenizedSplit, num_labels: int, raced: Sequence[tuple[str, str]]) -> None:
    """As many processes, started once, as train at the same time; the first of them trains alone before."""
    shared = run.scratch / "opponents"
    shared.mkdir()
    np.savez(shared / "rows.npz", input_ids=rows.input_ids, offsets=rows.offsets, labels=rows.labels)
    phases = [
        {
            "name": f"{method}-{name}-{count}",
            "method": method,
            "backbone_name": name,
            "backbone": dict(run.sizes.backbones[name]),
            "processes": count,
        }
        for count in (1, run.sizes.processes)
        for method, name in raced
    ]
    settings = {
        "shared": str(shared),
        "rows": str(shared / "rows.npz"),
        "adapter_size": run.sizes.adapter_size,
        "lora_rank": run.sizes.lora_rank,
        "lora_alpha": run.sizes.lora_alpha,
        "batch_size": run.sizes.batch_size,
        "num_labels": num_labels,
        "bf16": compute_dtype("auto", run.device) is torch.bfloat16,
        "device": run.device.type,
        "window_s": run.sizes.window_s,
        "patience_s": run.deadline.left(),
        "together": run.sizes.processes,
    }
    folders = [shared / str(index) for index in range(run.sizes.processes)]
    processes = {
        folder: _start(
            folder, {**settings, "seed": seed, "phases": [each for each in phases if seed < each["processes"]]}
        )
        for seed, folder in enumerate(folders)
    }
    try:
        is_up = _all_there("ready-start", processes, run.deadline)
        for phase in phases:
            taking_part = {folder: processes[folder] for folder in folders[: phase["processes"]]}
            rates = _race(shared, phase["name"], taking_part, run.deadline) if is_up else None
            where = {"trained_by": "Trainer", "method": phase["method"], "backbone": phase["backbone_name"]}
            where |= dict.fromkeys(("processes", "trials"), phase["processes"])
            if rates is None:
                run.leave_out(where, UNITS)
            else:
                run.add(where, {"examples_per_second": measured(sum(rates), "examples/s")})
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _start(folder: Path, settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    folder.mkdir()
    path = folder / "settings.json"
    path.write_text(json.dumps({**settings, "folder": str(folder)}), encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = max(1, (os.cpu_count() or 1) // settings["together"])  # each its share of the cores
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", "benchmarks.gpu.opponent_process", str(path)]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def _race(shared: Path, phase: str, processes: Processes, deadline: Deadline) -> list[float] | None:
    """Examples a second of each process in a window that begins for all at once; None where time was up before."""
    (shared / f"begin-{phase}").touch()
    if not _all_there(f"ready-{phase}", processes, deadline):
        return None
    (shared / f"go-{phase}").touch()
    if not _all_there(f"result-{phase}", processes, deadline):
        return None
    counted = [json.loads((folder / f"result-{phase}").read_text(encoding="utf-8")) for folder in processes]
    return [each["examples"] / each["seconds"] for each in counted]


def _all_there(name: str, processes: Processes, deadline: Deadline) -> bool:
    """Wait until every process has written a file of this name; False where time is up before.

    Raises `NotMeasuredError` with the end of its log where a process broke.
    """
    while not all((folder / name).exists() for folder in processes):
        for folder, process in processes.items():
            if process.poll() is not None and not (folder / name).exists():
                log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise NotMeasuredError(f"an opponent ended with {process.returncode}: {' / '.join(log[-3:])}")
        if deadline.has_passed():
            return False
        time.sleep(POLL_S)
    return True


def _ours(run: Run, rows: TokenizedSplit, num_labels: int, method: str, name: str, num_trials: int) -> None:
    where = {"trained_by": "adaptune", "method": method, "backbone": name, "processes": 1, "trials": num_trials}
    if run.deadline.has_passed():
        run.leave_out(where, UNITS)
        return
    config_of = lora_config if method == "lora" else trial_config
    configs = [config_of(run.sizes, seed, num_epochs=OURS_EPOCHS) for seed in range(num_trials)]
    pack = MeasuredPack(encoder(run.sizes.backbones[name], run.device), rows, configs, num_labels)
    times = pack.time_steps(run.sizes.window_s / 2, run.deadline)
    if not times:
        run.leave_out(where, UNITS)
        return
    examples = num_trials * run.sizes.batch_size
    # Of all steps together, not of the middle one: rows differ in length.
    run.add(where, {"examples_per_second": measured(examples * len(times) / sum(times), "examples/s")})
