"""Whole training steps of a small encoder with the kernels in Triton are those of torch."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.triton.conftest import InTriton
from tests.trainables.training.packable import ENCODER, ROUNDED, SmallOptions, make_config, make_pack, make_running
from trainables.nn.encoder import Encoder
from trainables.nn.kernels.triton import adamw, bottleneck, dropout, layernorm
from trainables.training.pack import Pack

RATES, DROPOUTS = (1e-3, 3e-3, 1e-2), (None, 0.3, 0.0)


def train(encoder: Encoder, method: str, options: SmallOptions, num_trials: int, *, steps: int) -> Pack:
    pack, own = make_pack(10**6, encoder), options(method, encoder)
    configs = [
        make_config(method, own, seed=k, learning_rate=RATES[k], dropout=DROPOUTS[k], init_std=0.1)
        for k in range(num_trials)
    ]
    pack.join([make_running(config) for config in configs])
    for _ in range(steps):
        pack.step()
    return pack


@pytest.fixture(name="called")
def called_fixture(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the kernels' doors were passed."""
    called: list[str] = []

    def watch(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: object, **named: object) -> object:
            called.append(f"{module.__name__.rpartition('.')[2]} {name}")
            return original(*args, **named)

        monkeypatch.setattr(module, name, watched)

    for module in (adamw, bottleneck, dropout, layernorm):
        for name in ("adamw_", "multiply", "forward", "backward"):
            if hasattr(module, name):
                watch(module, name)
    return called


@pytest.mark.parametrize(("method", "num_trials"), [("adapter", 2), ("full_finetuning", 1)])
@pytest.mark.thinned(1)
def test_steps_are_those_of_torch(
    method: str, num_trials: int, in_triton: InTriton, small_options: SmallOptions, called: list[str]
) -> None:
    expected = train(ENCODER, method, small_options, num_trials, steps=2)
    assert not called
    with in_triton():
        ours = train(ENCODER, method, small_options, num_trials, steps=2)
    expected_calls = {"adamw adamw_", "dropout multiply", "layernorm forward", "layernorm backward"}
    if method == "adapter":
        expected_calls |= {"bottleneck forward", "bottleneck backward"}
    assert set(called) == expected_calls
    torch.testing.assert_close(ours.weights.loss_sums, expected.weights.loss_sums, rtol=1e-5, atol=1e-6)
    # Adam's first steps are as long as the rate however small a gradient is, so rounding shows where that is nearly 0.
    is_near = (ours.weights.trained - expected.weights.trained).abs() <= 1e-6
    assert is_near.float().mean() > 0.999
    assert torch.allclose(_gradients(ours), _gradients(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_steps_in_bf16_are_those_of_torch_as_far_as_bf16_goes(in_triton: InTriton, small_options: SmallOptions) -> None:
    expected = train(ROUNDED, "adapter", small_options, 2, steps=1)
    with in_triton():
        ours = train(ROUNDED, "adapter", small_options, 2, steps=1)
    torch.testing.assert_close(ours.weights.loss_sums, expected.weights.loss_sums, rtol=1e-2, atol=1e-2)
    assert torch.equal(ours.weights._seen, ours.weights.trained.bfloat16())


def _gradients(pack: Pack) -> Tensor:
    """What the first moments hold of them."""
    assert pack.weights._moments is not None
    return pack.weights._moments[0]
