"""The price of a trial before it runs: arithmetic that can be checked by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import trial_config
from trainables.backbones.loading import describe_backbone
from trainables.estimate.flops import TaskSize, measure_device, measure_rate, measure_task, training_flops, trial_work
from trainables.estimate.throughput import TrialWork
from trainables.nn.encoder import EncoderShape

SIZE = TaskSize(train_rows=320, evaluation_rows=0, test_rows=0, mean_length=10.0)


def flops(tiny_bert: Path, method: str, size: TaskSize = SIZE, **options: int) -> float:
    config = trial_config(method, backbone=str(tiny_bert), method_options=options, num_epochs=1, batch_size=32)
    return trial_work(config, describe_backbone(str(tiny_bert)).shape, size).flops


def layer_flops(shape: EncoderShape, *, is_last: bool) -> tuple[float, float]:
    """Operations of a layer's weights and of its attention, of one word piece forwards.

    Of the last layer a classifier reads the first token alone: of every piece only keys and values are computed.
    """
    length, width = SIZE.mean_length, shape.hidden_size
    if not is_last:
        return 2 * shape.layer_params, 4 * length * width
    keys_and_values = 2 * (width**2 + width)
    return 2 * (keys_and_values + (shape.layer_params - keys_and_values) / length), 4 * width


def test_full_fine_tuning_costs_three_forward_passes_and_a_frozen_layer_below_one(tiny_bert: Path) -> None:
    shape = describe_backbone(str(tiny_bert)).shape
    lower, lower_attention = layer_flops(shape, is_last=False)
    last, last_attention = layer_flops(shape, is_last=True)
    pieces = SIZE.train_rows * SIZE.mean_length
    below = (shape.num_layers - 1) * (lower + lower_attention)
    full = pieces * 3 * (below + last + last_attention)
    assert flops(tiny_bert, "full_finetuning") == pytest.approx(full)
    # One top layer: the one below only forwards.
    assert flops(tiny_bert, "top_layers", num_layers=1) == pytest.approx(pieces * (below + 3 * (last + last_attention)))
    assert flops(tiny_bert, "layernorm") < full * 0.75


def test_what_is_frozen_but_passes_gradients_on_costs_two_forward_passes(tiny_bert: Path) -> None:
    shape = describe_backbone(str(tiny_bert)).shape
    lower, lower_attention = layer_flops(shape, is_last=False)
    last, last_attention = layer_flops(shape, is_last=True)
    products = 2 * ((shape.num_layers - 1) * lower + last)
    attention = 3 * ((shape.num_layers - 1) * lower_attention + last_attention)
    # LayerNorms are trained, a weight in thousands.
    assert flops(tiny_bert, "layernorm") == pytest.approx(
        SIZE.train_rows * SIZE.mean_length * (products + attention), rel=0.02
    )


def test_attention_within_a_window_costs_what_the_window_holds(tiny_bert: Path) -> None:
    config = trial_config("full_finetuning", backbone=str(tiny_bert), method_options={"pooling": "mean"})
    far = describe_backbone(str(tiny_bert)).shape
    near = dataclasses.replace(far, windows=(3, *[0] * (far.num_layers - 1)))
    seen = sum(min(place, 3) + 1 + min(19 - place, 3) for place in range(20)) / 20
    spared = 3 * 4 * (20 - seen) * far.hidden_size  # forwards, and twice that backwards
    assert training_flops(config, far, 20) - training_flops(config, near, 20) == pytest.approx(spared)
    assert training_flops(config, far, 4) == training_flops(config, near, 4)


def test_evaluation_costs_one_forward_pass_a_row(tiny_bert: Path) -> None:
    shape = describe_backbone(str(tiny_bert)).shape
    size = TaskSize(train_rows=320, evaluation_rows=100, test_rows=50, mean_length=10.0)
    forward = (shape.num_layers - 1) * sum(layer_flops(shape, is_last=False)) + sum(layer_flops(shape, is_last=True))
    extra = flops(tiny_bert, "full_finetuning", size) - flops(tiny_bert, "full_finetuning")
    assert extra == pytest.approx(150 * 10.0 * forward)


def test_training_costs_a_word_piece_what_it_costs_a_trial(tiny_bert: Path) -> None:
    config = trial_config(backbone=str(tiny_bert))
    shape = describe_backbone(str(tiny_bert)).shape
    pieces = SIZE.train_rows * SIZE.mean_length * config.num_epochs
    whole = trial_work(config, shape, SIZE).flops
    assert pieces * training_flops(config, shape, SIZE.mean_length) == pytest.approx(whole)


def test_a_task_is_measured_by_its_rows_and_words(task_folder: Callable[..., Path]) -> None:
    size = measure_task(str(task_folder(rows=40)), 128)
    assert (size.train_rows, size.evaluation_rows, size.test_rows) == (40, 32, 32)
    assert 3 < size.mean_length < 12


@pytest.mark.thorough
def test_the_rate_of_this_device_is_a_positive_number_and_threads_are_left_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    measure_rate.cache_clear()
    rate = measure_rate("fp32", num_threads=1)
    assert rate > 1e8
    assert torch.get_num_threads() == before
    assert measure_rate("fp32", num_threads=1) == rate  # measured once


@pytest.mark.thorough
def test_a_device_is_measured_beside_its_products_too() -> None:
    import torch

    before = torch.get_num_threads()
    measure_device.cache_clear()
    device = measure_device("fp32", num_threads=1)
    assert device.products == measure_rate("fp32", num_threads=1)
    assert device.numbers > 1e6
    assert torch.get_num_threads() == before
    assert measure_device("fp32", num_threads=1) is device


def test_activations_are_counted_once_up_and_twice_back_for_each_layer(tiny_bert: Path) -> None:
    """Two layers of width 16, rows of 10 word pieces: 320 a step, of 32 rows."""
    whole, top = work(tiny_bert, "full_finetuning"), work(tiny_bert, "top_layers", num_layers=1)
    assert whole.step_numbers > top.step_numbers > 320 * 16 * 2
    assert top.evaluation_numbers == 100 * 10 * 16  # the lowest layer's were kept
    assert top.once_numbers == (100 + 50) * 10 * 16
    probe = work(tiny_bert, "feature_based")
    assert probe.step_numbers < 320 * 16
    assert probe.once_numbers == (100 + 50 + 320) * 10 * 16 * 2


def work(tiny_bert: Path, method: str, *, dropout: float | None = None, **options: int) -> TrialWork:
    config = trial_config(method, backbone=str(tiny_bert), method_options=options, num_epochs=2, dropout=dropout)
    size = TaskSize(train_rows=320, evaluation_rows=100, test_rows=50, mean_length=10.0)
    return trial_work(config, describe_backbone(str(tiny_bert)).shape, size)


def test_what_is_frozen_below_is_computed_once_for_all_trials(tiny_bert: Path) -> None:
    everything = work(tiny_bert, "full_finetuning")
    assert (everything.once_flops, everything.once_key) == (0, None)
    kept = work(tiny_bert, "top_layers", num_layers=1)
    assert kept.evaluation_flops < everything.evaluation_flops
    assert kept.once_flops == pytest.approx(
        (everything.evaluation_flops - kept.evaluation_flops) * 150 / 100
    )  # on rows to evaluate alone: dropout alters those that are trained on
    undropped = work(tiny_bert, "top_layers", num_layers=1, dropout=0)
    assert undropped.once_flops > kept.once_flops
    assert undropped.step_flops < kept.step_flops
    assert undropped.once_key == kept.once_key is not None


def test_a_head_over_features_costs_next_to_nothing_but_the_features(tiny_bert: Path) -> None:
    features = work(tiny_bert, "feature_based")
    # 470 rows read once against 2 epochs of 320 trained and 100 evaluated rows.
    assert features.flops < features.once_flops / 20


def test_a_trials_operations_are_those_of_its_parts(tiny_bert: Path) -> None:
    adapter = work(tiny_bert, "adapter", adapter_size=4)
    assert (adapter.num_steps, adapter.num_epochs) == (20, 2)
    assert adapter.test_flops == pytest.approx(adapter.evaluation_flops / 2)
    parts = 20 * adapter.step_flops + 2 * adapter.evaluation_flops + adapter.test_flops
    assert adapter.flops == pytest.approx(parts)
