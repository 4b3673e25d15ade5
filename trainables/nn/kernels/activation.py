"""Activations and their derivatives, of bf16 numbers on a CPU looked up in tables that torch itself has filled.

There are only 65,536 numbers in bf16. A step asks for the activation of each element of the widest tensor of a layer,
forwards and backwards, and a table answers in a third to a half of the time that an error function takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.nn.kernels import native

Activation = Callable[[Tensor], Tensor]


def activate(before: Tensor, activation: Activation) -> Tensor:
    """The activation of every element of a contiguous tensor, in its dtype."""
    library = native.library_for(before)
    if library is None or before.dtype is not torch.bfloat16:
        return activation(before)
    after = torch.empty_like(before)
    library.look_up(before.numel(), *native.addresses(_values(activation), before, after))
    return after


def differentiate(before: Tensor, grad: Tensor, activation: Activation) -> Tensor:
    """The gradient before an activation, of that behind it; both tensors contiguous and of one dtype."""
    library = native.library_for(before)
    if library is None or before.dtype is not torch.bfloat16:
        return _differentiate(before, grad, activation)
    out = torch.empty_like(grad)
    library.look_up_and_multiply(
        before.numel(), *native.addresses(_derivatives(activation), before, grad.contiguous(), out)
    )
    return out


def _differentiate(before: Tensor, grad: Tensor, activation: Activation) -> Tensor:
    if activation is F.gelu:  # nearly every checkpoint's; its derivative needs no second forward pass
        return torch.ops.aten.gelu_backward(grad, before)
    with torch.enable_grad():
        before = before.detach().requires_grad_()
        return torch.autograd.grad(activation(before), before, grad)[0]


@functools.cache
def _values(activation: Activation) -> Tensor:
    """By the bits of a bf16 number, its activation in bf16."""
    with torch.no_grad():
        return activation(_every_number())


@functools.cache
def _derivatives(activation: Activation) -> Tensor:
    """By the bits of a bf16 number, the derivative there in float32."""
    numbers = _every_number().float()
    return _differentiate(numbers, torch.ones_like(numbers), activation)


def _every_number() -> Tensor:
    return torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
