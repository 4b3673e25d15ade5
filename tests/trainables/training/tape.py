"""A stand-in for CUDA graphs on a CPU: the operations of a step are noted and done again on the same tensors.

As with a graph, nothing that Python worked out is worked out again: a number that changes from step to step would stay
what it was when the step was recorded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables.training.captured_step import Step


class Tape(TorchDispatchMode):
    """Notes every operation, and what the tensors that were there before held."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._own: dict[int, Tensor] = {}  # of memory that came into being on the way, which is held and so not reused
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _written(func, args, kwargs):
            memory = tensor.untyped_storage().data_ptr()
            if memory not in self._own and memory not in self._before:
                whole = _whole(tensor)
                self._before[memory] = (whole, whole.clone())
        found = func(*args, **kwargs)
        known = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and (memory := each.untyped_storage().data_ptr()) not in known:
                self._own[memory] = each
        self.calls.append((func, args, kwargs, found))
        return found

    def undo(self) -> None:
        """A graph's recording does nothing yet."""
        for whole, before in self._before.values():
            whole.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, found in self.calls:
            known = {
                each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)
            }
            for old, new in zip(tree_leaves(found), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in known:
                    old.detach().copy_(new)


class TapeCapture:
    """Keeps to the contract of `Capture`, and notes what was asked of it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.tapes: list[Tape] = []

    def warm_up(self, step: Step) -> None:
        self.log.append("warm up")
        step()

    def record(self, step: Step) -> Step:
        self.log.append("record")
        tape = Tape()
        with tape:
            step()
        with torch.no_grad():
            tape.undo()
        self.tapes.append(tape)

        def replay() -> None:
            self.log.append("replay")
            tape.replay()

        return replay

    def release(self) -> None:
        self.log.append("release")


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors an operation writes to."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            found += [each for each in tree_leaves(given) if isinstance(each, Tensor)]
    return found


def _whole(tensor: Tensor) -> Tensor:
    """All the memory a tensor is a view of."""
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
