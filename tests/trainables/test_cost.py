"""The price of a trial before it runs: arithmetic that can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.backbone import describe_backbone
from trainables.config import TrialConfig
from trainables.cost import TaskSize, measure_rate, measure_task, trial_flops

SIZE = TaskSize(train_rows=320, evaluation_rows=0, test_rows=0, mean_length=10.0)


def flops(tiny_bert: Path, method: str, size: TaskSize = SIZE, **options: int) -> float:
    config = TrialConfig(
        task="any", backbone=str(tiny_bert), method=method, method_options=options, num_epochs=1, batch_size=32
    )
    return trial_flops(config, describe_backbone(str(tiny_bert)).shape, size)


def test_full_fine_tuning_costs_three_forward_passes_and_a_frozen_one_two(tiny_bert: Path) -> None:
    shape = describe_backbone(str(tiny_bert)).shape
    attention = 4 * SIZE.mean_length * shape.hidden_size
    layers = shape.num_layers
    pieces = SIZE.train_rows * SIZE.mean_length
    full = pieces * layers * (6 * shape.layer_params + 3 * attention)
    assert flops(tiny_bert, "full_finetuning") == pytest.approx(full)
    # One top layer: the one below only forwards.
    top = pieces * (2 * shape.layer_params + attention + 6 * shape.layer_params + 3 * attention)
    assert flops(tiny_bert, "top_layers", num_layers=1) == pytest.approx(top)
    assert flops(tiny_bert, "layernorm") < full * 0.75


def test_evaluation_costs_one_forward_pass_a_row(tiny_bert: Path) -> None:
    shape = describe_backbone(str(tiny_bert)).shape
    size = TaskSize(train_rows=320, evaluation_rows=100, test_rows=50, mean_length=10.0)
    forward = shape.num_layers * (2 * shape.layer_params + 4 * 10.0 * shape.hidden_size)
    extra = flops(tiny_bert, "full_finetuning", size) - flops(tiny_bert, "full_finetuning")
    assert extra == pytest.approx(150 * 10.0 * forward)


def test_a_task_is_measured_by_its_rows_and_words(task_folder: Callable[..., Path]) -> None:
    size = measure_task(str(task_folder(rows=40)), 128)
    assert (size.train_rows, size.evaluation_rows, size.test_rows) == (40, 32, 32)
    assert 3 < size.mean_length < 12


def test_the_rate_of_this_device_is_a_positive_number_and_threads_are_left_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    assert measure_rate("fp32", num_threads=1) > 1e8
    assert torch.get_num_threads() == before
