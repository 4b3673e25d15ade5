"""Tensors under the names of transformers' modules, where its classes write checkpoints under others.

Some models were published before transformers had classes for them. It reads those checkpoints by renaming and cutting
their tensors, and `save_pretrained` writes them under the published names again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PublishedNames:
    """How the names of a family's checkpoints become those of its modules.

    Args:
        renamed: parts of names and what stands in their place, tried in this order.
        joined: parts of names of tensors whose rows are those of several modules, in equal parts one after the other,
            and what stands in their place for each of these.
    """

    renamed: Mapping[str, str]
    joined: Mapping[str, tuple[str, ...]]

    def of_modules(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors by the names of modules; those that have these names already as they are."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            for part, instead in self.renamed.items():
                name = name.replace(part, instead)
            together = next((part for part in self.joined if part in name), None)
            if together is None or not tensor.dim():
                found[name] = tensor
                continue
            own = self.joined[together]
            for rows, instead in zip(tensor.chunk(len(own)), own, strict=False):  # fewer of a tensor that is too small
                found[name.replace(together, instead)] = rows
        return found
