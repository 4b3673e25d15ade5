"""The parts of the encoder: embeddings and post-LayerNorm Transformer layers of the BERT family.

Suffixes: K trials, B sequences a trial, S = K*B, L length, D hidden, I intermediate width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.attention import attend, attend_first
from trainables.dropout import Dropout
from trainables.feedforward import feed_forward
from trainables.layernorm import LayerNorm
from trainables.shape import EncoderShape

_gelu_tanh = functools.partial(F.gelu, approximate="tanh")

# By the names of Hugging Face configurations. Their own table costs a second of imports in every engine.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": F.gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "mish": F.mish,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


class Linear(nn.Linear):
    """A product in the dtype of its input, whatever dtype its weight is kept in."""

    def is_frozen_in(self, dtype: torch.dtype) -> bool:
        """Whether this is a plain product with frozen weights of this dtype, which may be fused with its neighbours."""
        return type(self) is Linear and self.weight.dtype is dtype and not self.weight.requires_grad

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.offset = shape.position_offset
        self.word = _embedding(shape.vocab_size, shape.embedding_size)
        self.position = _embedding(shape.max_positions, shape.embedding_size)
        types = shape.type_vocab_size
        self.token_type = _embedding(types, shape.embedding_size) if types else None
        self.layernorm = LayerNorm(shape.embedding_size, shape.layer_norm_eps)
        self.dropout = Dropout(shape.hidden_dropout)
        project = shape.embedding_size != shape.hidden_size
        self.project = Linear(shape.embedding_size, shape.hidden_size) if project else None

    def forward(self, input_ids_SL: Tensor, token_types_SL: Tensor, dtype: torch.dtype) -> Tensor:
        length = input_ids_SL.shape[1]
        hidden = self.word(input_ids_SL) + self.position.weight[self.offset : self.offset + length]
        if self.token_type is not None:
            # RoBERTa has a single type; its tokenizer may still number the second text 1.
            hidden = hidden + self.token_type(token_types_SL.clamp_max(self.token_type.num_embeddings - 1))
        hidden = self.dropout(self.layernorm(hidden.to(dtype)))
        return hidden if self.project is None else self.project(hidden)


def _embedding(rows: int, width: int) -> nn.Embedding:
    """What `nn.Embedding` makes, without importing torch's compiler where there is no memory to initialise."""
    return nn.Embedding.from_pretrained(torch.randn(rows, width), freeze=False)


class Attention(nn.Module):
    """Multi-head self-attention up to, not including, its output projection."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.dropout = Dropout(shape.attention_dropout)

    def forward(self, hidden_SLD: Tensor, padding_S11L: Tensor | None) -> Tensor:
        return attend(self.qkv(hidden_SLD), self.num_heads, padding_S11L, self.dropout)

    def first(self, hidden_SLD: Tensor, padding_S11L: Tensor | None) -> Tensor:
        """What the first token attends to (S, D): its query, everyone's keys and values."""
        width = hidden_SLD.shape[-1]
        if type(self.qkv) is Linear:
            weight, bias = self.qkv.weight.to(hidden_SLD.dtype), self.qkv.bias.to(hidden_SLD.dtype)
            query_SD = F.linear(hidden_SLD[:, 0], weight[:width], bias[:width])
            key_SLD, value_SLD = F.linear(hidden_SLD, weight[width:], bias[width:]).split(width, dim=-1)
        else:
            query_SLD, key_SLD, value_SLD = self.qkv(hidden_SLD).split(width, dim=-1)
            query_SD = query_SLD[:, 0]
        return attend_first(query_SD, key_SLD, value_SLD, self.num_heads, padding_S11L, self.dropout)


class SublayerOutput(nn.Module):
    """The end of a sub-layer: LN(x + Adapter(Dropout(W h + b))), the adapter an identity until a method sets one.

    The order is that of the paper's released code: the adapter sees the dropped-out projection, has its own skip,
    and comes before the sub-layer's residual and LayerNorm.
    """

    def __init__(self, in_width: int, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = Linear(in_width, shape.hidden_size)
        self.dropout = Dropout(shape.hidden_dropout)
        self.adapter: nn.Module = nn.Identity()
        self.layernorm = LayerNorm(shape.hidden_size, shape.layer_norm_eps)

    def forward(self, hidden_SLI: Tensor, residual_SLD: Tensor) -> Tensor:
        return self.finish(self.dense(hidden_SLI), residual_SLD)

    def finish(self, projected_SLD: Tensor, residual_SLD: Tensor) -> Tensor:
        """What follows the projection W h + b."""
        return self.layernorm(self.adapter(self.dropout(projected_SLD)), residual_SLD)


class EncoderLayer(nn.Module):
    """One Transformer layer: attention and feed-forward, each with its residual and LayerNorm."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.attention_output = SublayerOutput(shape.hidden_size, shape)
        self.intermediate = Linear(shape.hidden_size, shape.intermediate_size)
        self.activation = ACTIVATIONS[shape.activation]
        self.feedforward_output = SublayerOutput(shape.intermediate_size, shape)

    def forward(self, hidden_SLD: Tensor, padding_S11L: Tensor | None) -> Tensor:
        return self._feed_forward(self.attention_output(self.attention(hidden_SLD, padding_S11L), hidden_SLD))

    def first(self, hidden_SLD: Tensor, padding_S11L: Tensor | None) -> Tensor:
        """The first token's output (S, D) alone, which is all that a classifier reads of the last layer."""
        hidden_SD = self.attention_output(self.attention.first(hidden_SLD, padding_S11L), hidden_SLD[:, 0])
        return self._feed_forward(hidden_SD)

    def _feed_forward(self, hidden_SLD: Tensor) -> Tensor:
        up, down = self.intermediate, self.feedforward_output.dense
        if up.is_frozen_in(hidden_SLD.dtype) and down.is_frozen_in(hidden_SLD.dtype):
            weights = (up.weight, up.bias, down.weight, down.bias)
            return self.feedforward_output.finish(feed_forward(hidden_SLD, weights, self.activation), hidden_SLD)
        return self.feedforward_output(self.activation(up(hidden_SLD)), hidden_SLD)
