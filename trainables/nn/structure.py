"""Copies of modules that share their tensors."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar, cast

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def copy_structure(module: Module, copies: dict[int, nn.Module] | None = None) -> Module:
    """A copy of a tree of modules over the same tensors: what is replaced in one is not in the other.

    A module that stands in two places does so in the copy too. Attributes that are no part of the tree are shared.
    `copy.deepcopy` takes ten times as long.

    Args:
        module: the root.
        copies: those already made, by the id of what they are of; made anew where None. Trees that are copied with
            the same ones share in their copies what they share.
    """
    copies = {} if copies is None else copies
    if id(module) in copies:
        return cast(Module, copies[id(module)])
    found = module.__new__(type(module))
    copies[id(module)] = found
    for name, value in vars(module).items():
        # Torch keeps parameters, buffers, modules and hooks in tables of its own; any other attribute is a value.
        is_table = name.startswith("_") and type(value) in (dict, OrderedDict, set)
        vars(found)[name] = value.copy() if is_table else value
    for name, child in module._modules.items():
        found._modules[name] = None if child is None else copy_structure(child, copies)
    return found
