"""What packs would hold, before there is any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests.factories import trial_config
from trainables.backbones.loading import describe_backbone
from trainables.estimate.flops import TaskSize
from trainables.estimate.throughput import DeviceRate, arithmetic_timing
from trainables.estimate.trial_cost import TrialCost, trial_cost

RATE = DeviceRate(products=1e12, numbers=1e12)


def make(tiny_bert: Path, method: str = "adapter", length: float = 8.0, **options: int) -> TrialCost:
    config = trial_config(method, backbone=str(tiny_bert), method_options=options, precision="fp32")
    size = TaskSize(train_rows=320, evaluation_rows=100, test_rows=0, mean_length=length, longest=int(2 * length))
    return trial_cost(
        config,
        size,
        task_fingerprint="data",
        backbone=describe_backbone(str(tiny_bert)),
        trained_params=1000,
        device=torch.device("cpu"),
    )


def test_a_pack_fills_a_pass_and_grows_as_long_as_that_is_quicker(tiny_bert: Path) -> None:
    short = make(tiny_bert, adapter_size=4)
    by_trials = arithmetic_timing(short.work, RATE)
    slow_pack = replace(by_trials, fixed_s=1.0, trial_s=0.01)
    steady = replace(by_trials, fixed_s=0.0, trial_s=1.0)
    assert short.limit(steady, None) == 8  # 8 trials of 32 rows of 8 word pieces are 2048
    assert short.limit(slow_pack, None) == 32
    assert short.limit(replace(steady, mean_length=32.0), None) == 2  # as counted, not as guessed


def test_a_trial_that_cannot_be_stacked_trains_alone(tiny_bert: Path) -> None:
    whole = make(tiny_bert, "full_finetuning")
    assert whole.limit(arithmetic_timing(whole.work, RATE), None) == 1


def test_memory_bounds_a_pack(tiny_bert: Path) -> None:
    short = make(tiny_bert, adapter_size=4)
    steady = replace(arithmetic_timing(short.work, RATE), fixed_s=1.0)
    assert short.limit(steady, 1) == 1
    sizes = [short.pack_bytes(size) for size in (1, 2, 4)]
    assert sizes == sorted(sizes)
    assert sizes[0] > short.resident_bytes


def test_what_reads_no_backbone_holds_none_and_is_of_one_kind_whatever_the_backbone(tiny_bert: Path) -> None:
    with_backbone, without = make(tiny_bert, adapter_size=4), make(tiny_bert, "no_bert")
    assert without.kind.backbone == ""
    assert with_backbone.kind.backbone == describe_backbone(str(tiny_bert)).fingerprint
    assert without.resident_bytes < with_backbone.resident_bytes
