"""A trial as far as its time and memory can be told before it runs: what it computes, and what a pack of it holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainables.backbones.loading import STAND_IN_SHAPE, BackboneInfo
from trainables.config import TrialConfig
from trainables.device.dtype import compute_dtype
from trainables.engine.pack_size import WORTHWHILE, MemoryModel, PackSizer, batch_tokens, piece_bytes
from trainables.estimate.flops import TaskSize, trial_work
from trainables.estimate.throughput import Timing, TrialWork, WorkloadKey, workload_key
from trainables.methods import uses_backbone
from trainables.training.model import stack_key
from trainables.training.optimizer import bytes_per_trial
from trainables.training.pack import TOKENS_PER_SLICE

# What a process holds beside backbone and packs: Python, torch, the tokenised task.
PROCESS_BYTES = {"cpu": 500 * 2**20, "cuda": 0}


@dataclass(frozen=True, kw_only=True)
class TrialCost:
    """What is known of a trial of a kind."""

    kind: WorkloadKey
    work: TrialWork
    memory: MemoryModel
    mean_length: float
    batch_size: int
    resident_bytes: int  # backbone and process, whatever the pack
    backbone_bytes: int  # of these, the weights that are read when an engine changes to this backbone
    is_stackable: bool

    def limit(self, timing: Timing, free_bytes: int | None) -> int:
        """The most trials an engine packs: as many as fill a pass, and more as long as they are quicker together."""
        if not self.is_stackable:
            return 1
        length = self.mean_length if timing.mean_length is None else timing.mean_length
        sizer = PackSizer(self.memory, free_bytes, typical_tokens=int(length * self.batch_size))
        limit = sizer.limit
        while limit * 2 <= sizer.max_trials:
            if timing.step_s(2 * limit) / 2 > WORTHWHILE * timing.step_s(limit):
                break
            limit *= 2
        return limit

    def pack_bytes(self, num_trials: int) -> int:
        """Memory of an engine with a pack of so many, by arithmetic."""
        return self.resident_bytes + self.memory.pack_bytes(num_trials)


def trial_cost(
    config: TrialConfig,
    size: TaskSize,
    *,
    task_fingerprint: str,
    backbone: BackboneInfo | None,
    trained_params: int,
    device: torch.device,
) -> TrialCost:
    """What is known of a trial on a task of this size; `backbone` may be None where its method reads none."""
    shape = backbone.shape if backbone is not None else STAND_IN_SHAPE
    reads = uses_backbone(config.method)
    dtype = compute_dtype(config.precision, device)
    tokens = TOKENS_PER_SLICE[device.type]
    weights = shape.params if reads else 0
    fingerprint = (backbone.fingerprint or backbone.name) if backbone is not None and reads else ""
    _, most = batch_tokens(
        config.batch_size, mean_length=size.mean_length, length_std=size.length_std, longest=size.longest
    )
    memory = MemoryModel(
        bytes_per_trial=bytes_per_trial(trained_params, dtype),
        bytes_per_token=piece_bytes(config.method, shape, size.longest, dtype),
        tokens_per_trial=most,
        tokens_per_slice=tokens,
        has_graphs=reads and device.type == "cuda",
    )
    return TrialCost(
        kind=workload_key(config, task=task_fingerprint, backbone=fingerprint),
        work=trial_work(config, shape, size),
        memory=memory,
        mean_length=size.mean_length,
        batch_size=config.batch_size,
        resident_bytes=weights * dtype.itemsize + PROCESS_BYTES[device.type],
        backbone_bytes=weights * dtype.itemsize,
        is_stackable=stack_key(config) is not None,
    )
