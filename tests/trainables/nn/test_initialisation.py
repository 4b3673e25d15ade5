"""Initial values: a normal truncated at two of its own standard deviations, whatever they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from trainables.nn.initialisation import truncated_normal, zeros

CPU = torch.device("cpu")


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("std", [1e-7, 1e-5, 1e-3, 1e-2, 0.02, 1.0])
def test_weights_are_truncated_at_two_standard_deviations(std: float) -> None:
    weights = truncated_normal((400, 500), std, generators(0), CPU)
    assert weights.abs().max().item() <= 2 * std * (1 + 1e-6)
    assert weights.abs().max().item() > 1.99 * std  # so the bound is at two, not below
    assert weights.double().std().item() == pytest.approx(0.8796 * std, rel=5e-3)
    assert abs(weights.double().mean().item()) < 5 * 0.88 * std / np.sqrt(weights.numel())


def test_weights_are_distributed_as_scipy_s_truncated_normal() -> None:
    weights = truncated_normal((20_000,), 1e-2, generators(3), CPU)[0].detach().double().numpy()
    assert stats.kstest(weights, stats.truncnorm(-2, 2, scale=1e-2).cdf).pvalue > 1e-3


def test_a_trial_s_values_are_drawn_from_its_own_generator() -> None:
    together = truncated_normal((8, 4), 0.1, generators(1, 2, 3), CPU)
    assert together.shape == (3, 8, 4)
    for trial, seed in enumerate((1, 2, 3)):
        assert torch.equal(together[trial], truncated_normal((8, 4), 0.1, generators(seed), CPU)[0])
    assert not torch.equal(together[0], together[1])


def test_a_standard_deviation_of_zero_gives_zeros() -> None:
    assert not truncated_normal((8, 4), 0.0, generators(1), CPU).any()


def test_initial_values_are_trained_in_float32() -> None:
    for parameter in (truncated_normal((3, 2), 0.1, generators(1, 2), CPU), zeros(2, (3, 2), CPU)):
        assert parameter.requires_grad
        assert (parameter.dtype, parameter.shape) == (torch.float32, (2, 3, 2))
    assert not zeros(2, (3, 2), CPU).any()


def test_on_the_meta_device_there_is_only_a_size() -> None:
    parameter = truncated_normal((1000, 1000), 0.1, generators(1, 2), torch.device("meta"))
    assert (parameter.device.type, parameter.shape) == ("meta", (2, 1000, 1000))
