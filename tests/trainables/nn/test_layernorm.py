"""LayerNorms of K trials are K of the library's own, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainables.nn.layernorm import LayerNorm

WIDTH = 16


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(num_trials: int) -> LayerNorm:
    """One weight and bias a trial."""
    module = LayerNorm(WIDTH, 1e-12)
    module.weight, module.bias = (nn.Parameter(random(num_trials, WIDTH, seed=seed)) for seed in (1, 2))
    return module


@pytest.mark.parametrize("num_trials", [1, 2, 5])
@pytest.mark.parametrize("has_residual", [False, True])
def test_each_trial_s_values_and_gradients_are_the_library_s(num_trials: int, has_residual: bool) -> None:
    module = trained(num_trials)
    hidden = random(2 * num_trials, 5, WIDTH, seed=3).requires_grad_()
    residual = random(2 * num_trials, 5, WIDTH, seed=4).requires_grad_() if has_residual else None
    upstream = random(2 * num_trials, 5, WIDTH, seed=5)
    normed = module(hidden, residual)
    normed.backward(upstream)
    for trial in range(num_trials):
        mine = slice(2 * trial, 2 * trial + 2)
        library = nn.LayerNorm(WIDTH, eps=1e-12)
        library.load_state_dict({"weight": module.weight[trial], "bias": module.bias[trial]})
        total = hidden[mine].detach() + (0 if residual is None else residual[mine].detach())
        total.requires_grad_()
        expected = library(total)
        expected.backward(upstream[mine])
        compared = [
            (normed[mine], expected),
            (hidden.grad[mine], total.grad),
            (module.weight.grad[trial], library.weight.grad),
            (module.bias.grad[trial], library.bias.grad),
            *([] if residual is None else [(residual.grad[mine], total.grad)]),
        ]
        for ours, theirs in compared:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_frozen_one_is_the_same_for_all_and_starts_as_the_identity() -> None:
    module = LayerNorm(WIDTH, 1e-5)
    hidden = random(6, 5, WIDTH, seed=3)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    torch.testing.assert_close(module(hidden), nn.functional.layer_norm(hidden, (WIDTH,), eps=1e-5))


def test_weights_learn_where_what_they_normalise_does_not() -> None:
    module = trained(3)
    module(random(6, 5, WIDTH, seed=3)).square().sum().backward()  # as the embeddings', whose sum is frozen
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_gradients_of_one_trial_s_rows_reach_its_weights_only() -> None:
    module = trained(3)
    module(random(6, 5, WIDTH, seed=3))[2:4].square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert [bool(row.any()) for row in parameter.grad] == [False, True, False]


def test_a_gradient_that_is_not_contiguous_is_understood() -> None:
    module = trained(3)
    hidden = random(6, 5, WIDTH, seed=3).requires_grad_()
    upstream = random(5, 6, WIDTH, seed=5)
    (ours,) = torch.autograd.grad(module(hidden), hidden, upstream.transpose(0, 1))
    (expected,) = torch.autograd.grad(module(hidden), hidden, upstream.transpose(0, 1).contiguous())
    assert torch.equal(ours, expected)


def test_bf16_is_normalised_in_float32() -> None:
    module = trained(2)
    hidden = random(4, 5, WIDTH, seed=3)
    normed = module(hidden.bfloat16())
    assert normed.dtype == torch.bfloat16
    torch.testing.assert_close(normed.float(), module(hidden.bfloat16().float()), rtol=0.02, atol=0.02)
