"""Steps whose batches the device gathers, with the kernels in Triton, are those of torch with the host's batches."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.nn.kernels.triton.conftest import InTriton
from tests.trainables.training.packable import make_config, make_pack, make_running
from trainables.training.pack import Pack


def train(*, gathers: bool) -> Pack:
    pack = make_pack()
    pack.gathers_on_device = gathers
    configs = [
        make_config("adapter", {"adapter_size": 4}, seed=seed, dropout=rate, warmup_ratio=0.0)
        for seed, rate in enumerate([0.1, 0.4])
    ]
    pack.join([make_running(config) for config in configs])
    pack.step()
    return pack


@pytest.mark.thorough
def test_gathered_steps_are_the_same(in_triton: InTriton) -> None:
    expected = train(gathers=False)
    with in_triton():
        ours = train(gathers=True)
    torch.testing.assert_close(ours.weights.loss_sums, expected.weights.loss_sums, rtol=1e-5, atol=1e-6)
    assert ours.weights._moments is not None
    assert expected.weights._moments is not None
    for mine, theirs in zip(ours.weights._moments, expected.weights._moments, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    is_near = (ours.weights.trained - expected.weights.trained).abs() <= 1e-6
    assert is_near.float().mean() > 0.999
