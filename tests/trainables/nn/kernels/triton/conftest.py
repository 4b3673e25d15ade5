"""The kernels in Triton run in its interpreter here: it must be asked for before any of them is defined."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from trainables.nn.kernels import native

InTriton = Callable[[], AbstractContextManager[None]]


@pytest.fixture(name="in_triton")
def in_triton_fixture(monkeypatch: pytest.MonkeyPatch) -> InTriton:
    """A context in which the kernels in Triton serve rows on a CPU; outside of it torch alone works on them."""
    monkeypatch.setattr(native, "library", lambda: None)

    @contextmanager
    def in_triton() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
            patch.setenv("ADAPTUNE_TRITON", "interpret")
            yield

    return in_triton


@pytest.fixture(params=[1, 3], name="batch")
def batch_fixture(request: pytest.FixtureRequest) -> Batch:
    """A batch of one trial and one of three, whose segments end in dummy rows."""
    lengths, rates = [[3, 5], [4, 1], [2, 2]], [0.1, 0.0, 0.73]
    return lay_out(lengths[: request.param], rates[: request.param])


@pytest.fixture(scope="session", autouse=True)
def as_on_a_gpu() -> Iterator[None]:
    """Mends Triton's interpreter 3.6: bf16 is cut off instead of rounded and multiplied wrongly, some loops fail."""
    cast, prepare = interpreter._convert_float, interpreter._patch_lang_tensor
    builder = interpreter.InterpreterBuilder
    multiply, call = builder.create_dot, interpreter.InterpretedFunction.__call__

    def rounding(numbers: np.ndarray, source: tl.dtype, target: tl.dtype, mode: object) -> np.ndarray:
        if (source, target) == (tl.float32, tl.bfloat16):
            return torch.from_numpy(np.array(numbers)).bfloat16().view(torch.uint16).numpy()
        if (source, target) == (tl.bfloat16, tl.float32):
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return cast(numbers, source, target, mode)

    def counting(tensor: type, scope: Any) -> None:
        prepare(tensor, scope)
        # Its scalars are arrays of one element, of which NumPy 2.4 makes no integer: a loop's bound would be an error.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def multiplying(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        # It keeps bf16 in uint16, and would multiply those.
        a, b = (
            interpreter.TensorHandle((each.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
            if each.dtype.scalar == tl.bfloat16
            else each
            for each in (a, b)
        )
        return multiply(self, a, b, *rest)

    def calling(self: Any, *args: Any, **named: Any) -> Any:
        # It would prepare the language again for each function that a kernel calls, which takes most of the time.
        own = self.fn.__module__.startswith("trainables.")
        return self.rewrite()(*args, **named) if own else call(self, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.InterpretedFunction, "__call__", calling)
        patch.setattr(builder, "create_dot", multiplying)
        patch.setattr(interpreter, "_convert_float", rounding)
        patch.setattr(interpreter, "_patch_lang_tensor", counting)
        yield
