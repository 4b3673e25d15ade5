"""One frozen encoder under many trained ones: what each has of its own is applied to its own rows of a batch.

A batch holds the rows of several tasks end to end, task after task, each a segment. Frozen products see all of them as
one matrix; what differs is added to a task's segment: biases, low-rank changes, LayerNorms, adapters. So a task's
rows are computed from its own weights and the batch's shape alone, whoever else is in it.

Suffixes: N rows (word pieces) or S sequences, D width, I and O the widths of a projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.nn.encoder import Encoder
from trainables.nn.feedforward import BLOCK_ROWS
from trainables.nn.kernels.frozen_product import frozen_linear
from trainables.nn.layernorm import LayerNorm
from trainables.nn.layers import EncoderLayer, SublayerOutput
from trainables.nn.linear import Linear
from trainables.nn.postnorm import PostNormOutput


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Where the rows of a task lie in a batch."""

    task: str
    rows: slice
    sequences: slice


class Routing:
    """Whose rows are whose in the batch at hand, for all modules of one mixed encoder."""

    def __init__(self) -> None:
        self.segments: Sequence[Segment] = ()

    def of(self, num_rows: int) -> Iterator[tuple[str, slice]]:
        """Each task with its part of so many rows, which are word pieces, or sequences by their first."""
        are_pieces = bool(self.segments) and num_rows == self.segments[-1].rows.stop
        for segment in self.segments:
            yield segment.task, segment.rows if are_pieces else segment.sequences


class MixedLinear(Linear):
    """A frozen projection, and what tasks add to it.

    Args:
        is_blocked: whether on a CPU its rows are computed in the blocks of the fused feed-forward sub-layer, so that
            they come out the same to the bit whether that one is used or not.
        is_always_mixed: whether it is never to be taken for a plain product.
    """

    def __init__(self, frozen: Linear, routing: Routing, *, is_blocked: bool, is_always_mixed: bool) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = frozen.weight, frozen.bias
        self.in_features, self.out_features = frozen.in_features, frozen.out_features
        self._routing = routing
        self._is_blocked = is_blocked
        self._is_always_mixed = is_always_mixed
        self.own: dict[str, Linear] = {}

    @property
    def is_plain(self) -> bool:
        if self._is_always_mixed:
            return False
        return not any(segment.task in self.own for segment in self._routing.segments)

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        size = BLOCK_ROWS if self._is_blocked and rows.device.type == "cpu" else max(1, len(rows))
        blocks = [frozen_linear(block, self.weight, self.bias) for block in rows.split(size)]
        product = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        for task, part in self._routing.of(len(rows)):
            if (own := self.own.get(task)) is not None:
                own.add_own(product[part], rows[part], self.bias)
        return product.view(*input.shape[:-1], self.out_features)


class MixedLayerNorm(LayerNorm):
    """A frozen LayerNorm for the tasks that have none of their own."""

    def __init__(self, frozen: LayerNorm, routing: Routing) -> None:
        nn.Module.__init__(self)
        self.eps, self.weight, self.bias = frozen.eps, frozen.weight, frozen.bias
        self._routing = routing
        self.own: dict[str, LayerNorm] = {}

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor | None = None) -> Tensor:
        if not any(segment.task in self.own for segment in self._routing.segments):
            return super().forward(hidden_ND, residual_ND)
        out_ND = torch.empty_like(hidden_ND)
        for task, part in self._routing.of(len(hidden_ND)):
            residual = None if residual_ND is None else residual_ND[part]
            own = self.own.get(task)
            normed = super().forward(hidden_ND[part], residual) if own is None else own(hidden_ND[part], residual)
            out_ND[part] = normed
        return out_ND


class MixedAdapter(nn.Module):
    """The adapters of tasks at one end of a sub-layer, each with that task's LayerNorm, which some of them read."""

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        self._routing = routing
        self.own: dict[str, tuple[nn.Module, LayerNorm]] = {}

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor, layernorm: nn.Module, input_ND: Tensor) -> Tensor:
        for task, part in self._routing.of(len(hidden_ND)):
            if task in self.own:
                adapter, own_layernorm = self.own[task]
                changed = adapter(hidden_ND[part], residual_ND[part], own_layernorm, input_ND[part])
                hidden_ND[part] = changed  # it is a product's result
        return hidden_ND


class MixedEncoder:
    """A view of a frozen encoder through which rows of many tasks pass together.

    `view` is the encoder to call, without gradients, once `routing` says whose rows are whose. Raises `ValueError` for
    an encoder that is not built like BERT: of layers with LayerNorms behind them, each with weights of its own.
    """

    def __init__(self, frozen: Encoder) -> None:
        shape = frozen.shape
        if shape.library is not None or shape.is_pre_norm or shape.num_distinct_layers() < shape.num_layers:
            raise ValueError(f"layers of a {shape.model_type} are not those of BERT")
        self.frozen = frozen
        self.routing = Routing()
        self.view = frozen.view()
        self._linears: dict[str, MixedLinear] = {}
        self._layernorms: dict[str, MixedLayerNorm] = {}
        self._adapters: dict[str, MixedAdapter] = {}
        blocked = {f"layers.{index}.{name}" for index in range(len(self.view.layers)) for name in _FEED_FORWARD}
        for name, module in list(self.view.named_modules()):
            if type(module) is Linear:
                is_qkv = name.endswith("attention.qkv")
                mixed = MixedLinear(module, self.routing, is_blocked=name in blocked, is_always_mixed=is_qkv)
                self._linears[name] = mixed
                self.view.set_submodule(name, mixed)
            elif type(module) is LayerNorm:
                self._layernorms[name] = MixedLayerNorm(module, self.routing)
                self.view.set_submodule(name, self._layernorms[name])
            elif isinstance(module, SublayerOutput):
                self._adapters[name] = module.adapter = MixedAdapter(self.routing)
        self.view.eval()

    def add(self, task: str, view: Encoder) -> None:
        """Let a task's rows be computed as its own view of the same encoder does.

        Raises `ValueError` saying why that cannot be, and then nothing has changed.
        """
        if (why := self._why_not(view)) is not None:
            raise ValueError(why)
        modules = dict(view.named_modules())
        for name, linear in self._linears.items():
            own = modules.get(name)
            if isinstance(own, Linear) and (type(own) is not Linear or own.bias is not linear.bias):
                linear.own[task] = own
        for name, layernorm in self._layernorms.items():
            own = modules[name]
            assert isinstance(own, LayerNorm)
            if own.weight is not layernorm.weight or own.bias is not layernorm.bias:
                layernorm.own[task] = own
        for name, adapters in self._adapters.items():
            end = modules[name]
            assert isinstance(end, PostNormOutput)
            if end.adapter is not None:
                adapters.own[task] = end.adapter, end.layernorm

    def remove(self, task: str) -> None:
        """Forget a task."""
        for linear in self._linears.values():
            linear.own.pop(task, None)
        for layernorm in self._layernorms.values():
            layernorm.own.pop(task, None)
        for adapters in self._adapters.values():
            adapters.own.pop(task, None)

    def _why_not(self, view: Encoder) -> str | None:
        """Why rows of a view cannot be computed beside others; None where they can."""
        if view.body is not None:
            return "it computes everything by itself"
        if any(isinstance(layer, EncoderLayer) and layer.branch is not None for layer in view.layers):
            return "it has branches beside the layers"
        here, there = dict(self.frozen.named_modules()), dict(view.named_modules())
        places = [name for name, end in there.items() if isinstance(end, SublayerOutput) and end.adapter is not None]
        inside = [f"{name}.adapter" for name in places] + [
            name for name, module in there.items() if isinstance(module, Linear) and type(module) is not Linear
        ]
        for name in there:
            if name not in here and not any(name == place or name.startswith(f"{place}.") for place in inside):
                return f"it has a part of its own, {name}"
        for name, module in here.items():
            own = there.get(name)
            if own is None:
                if name.partition(".")[0] == "pooler":  # nobody reads it
                    continue
                return f"it lacks {name}"
            if type(own) is not type(module) and not (type(module) is Linear and isinstance(own, Linear)):
                return f"its {name} is a {type(own).__name__}"
            for leaf, tensor in module.named_parameters(recurse=False):
                if getattr(own, leaf) is tensor or isinstance(module, LayerNorm):
                    continue
                if not (type(module) is Linear and leaf == "bias"):
                    return f"it has its own {name}.{leaf} in the place of the backbone's"
        return None


_FEED_FORWARD = ("intermediate", "feedforward_output.dense")
