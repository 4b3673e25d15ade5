"""Rotary positions: what a product of a rotated query and key depends on, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.nn.kernels.rotary import angles, rotate

WIDTH, THETA = 8, 100.0


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_product_depends_on_how_far_apart_two_rows_stand() -> None:
    query, key = random(1, WIDTH), random(1, WIDTH, seed=1)

    def product(first: int, second: int) -> Tensor:
        placed = [
            rotate(row, angles(torch.tensor([place]), THETA, WIDTH), WIDTH)
            for row, place in ((query, first), (key, second))
        ]
        return (placed[0] * placed[1]).sum()

    torch.testing.assert_close(product(3, 10), product(20, 27), rtol=0, atol=1e-5)
    torch.testing.assert_close(product(5, 5), (query * key).sum(), rtol=0, atol=1e-6)
    assert abs(product(3, 10) - product(3, 11)) > 1e-3


def test_each_pair_is_turned_by_its_own_angle() -> None:
    rows = random(3, 2 * WIDTH + 2)  # two heads, and two columns that stay
    turned = rotate(rows, angles(torch.arange(3), THETA, WIDTH), 2 * WIDTH)
    assert torch.equal(turned[:, 2 * WIDTH :], rows[:, 2 * WIDTH :])
    for place in range(3):
        for head in (0, WIDTH):
            for pair in range(WIDTH // 2):
                lower, upper = head + pair, head + pair + WIDTH // 2
                number = torch.complex(rows[place, lower], rows[place, upper])
                expected = number * torch.polar(torch.ones(()), torch.tensor(place * THETA ** (-2 * pair / WIDTH)))
                found = torch.complex(turned[place, lower], turned[place, upper])
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    rows = random(4, 3 * WIDTH).double().requires_grad_()
    upstream = random(4, 3 * WIDTH, seed=2)
    of_batch = angles(torch.arange(4), THETA, WIDTH)
    (gradient,) = torch.autograd.grad(rotate(rows, of_batch, 2 * WIDTH), rows, upstream.double())
    # A rotation is linear, so its gradient is found from what it makes of each unit.
    units = torch.eye(3 * WIDTH)
    for place in range(4):
        turned = rotate(units, tuple(each[place : place + 1].expand(3 * WIDTH, -1) for each in of_batch), 2 * WIDTH)
        torch.testing.assert_close(gradient[place].float(), turned @ upstream[place], rtol=0, atol=1e-5)


def test_low_precision_is_rounded_once() -> None:
    rows, of_batch = random(5, WIDTH).bfloat16(), angles(torch.arange(5), THETA, WIDTH)
    assert torch.equal(rotate(rows, of_batch, WIDTH), rotate(rows.float(), of_batch, WIDTH).bfloat16())
