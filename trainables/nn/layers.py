"""The parts of the encoder: embeddings and post-LayerNorm Transformer layers of the BERT family.

Suffixes: K trials, S sequences, N rows (word pieces), D hidden, I intermediate width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.nn.dropout import Dropout
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.feedforward import feed_forward
from trainables.nn.kernels import triton
from trainables.nn.kernels.attention import Added, attend, attend_first
from trainables.nn.kernels.frozen_product import frozen_linear
from trainables.nn.layernorm import LayerNorm
from trainables.nn.linear import Linear
from trainables.nn.pieces import Pieces
from trainables.nn.relative import relative_scores, relative_table

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


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.offset = shape.position_offset
        self.word = _embedding(shape.vocab_size, shape.embedding_size)
        self.position = _embedding(shape.max_positions, shape.embedding_size) if shape.embeds_positions else None
        types = shape.type_vocab_size
        self.token_type = _embedding(types, shape.embedding_size) if types else None
        tasks = shape.task_type_vocab_size
        self.task_type = _embedding(tasks, shape.embedding_size) if tasks else None
        self.layernorm = LayerNorm(shape.embedding_size, shape.layer_norm_eps)
        self.dropout = Dropout(shape.hidden_dropout)
        project = shape.embedding_size != shape.hidden_size
        self.project = Linear(shape.embedding_size, shape.hidden_size) if project else None
        self.relative = relative_table(shape)

    def forward(self, pieces: Pieces, dtype: torch.dtype) -> Tensor:
        """Hidden states (N, D)."""
        if triton.serves(self.word.weight) and self._is_frozen_in(dtype):
            hidden_ND = self._in_triton(pieces)
            return hidden_ND if self.project is None else self.project(hidden_ND)
        hidden_ND = self.word(pieces.input_ids_N)
        if self.position is not None:
            hidden_ND = hidden_ND + self.position(self._positions(pieces) + self.offset)
        if self.token_type is not None:
            # RoBERTa has a single type; its tokenizer may still number the second text 1.
            hidden_ND = hidden_ND + self.token_type(pieces.token_types_N.clamp_max(self.token_type.num_embeddings - 1))
        if self.task_type is not None:
            hidden_ND = hidden_ND + self.task_type.weight[0]
        hidden_ND = self.dropout(self.layernorm(hidden_ND.to(dtype)))
        return hidden_ND if self.project is None else self.project(hidden_ND)

    def relate(self, pieces: Pieces, dtype: torch.dtype) -> Pieces:
        """The batch with what its attention adds to scores by distance, where that is anything."""
        return pieces if self.relative is None else replace(pieces, relative=self.relative(pieces, dtype))

    def _positions(self, pieces: Pieces) -> Tensor:
        """The place of each row among the words of its text (N,).

        Where positions count from after the padding's, a padding token that stands in a text is at the padding's own
        position, -1 here, and does not count.
        """
        if self.offset == 0:
            return pieces.positions_N
        is_padding_N = pieces.input_ids_N == self.offset - 1
        before_N = is_padding_N.cumsum(dim=0) - is_padding_N.long()
        starts_N = pieces.first_rows_S[pieces.owners_N.clamp_max(pieces.num_sequences - 1)]
        places_N = pieces.positions_N - (before_N - before_N[starts_N])
        # Dummy rows have no text of their own; theirs is kept within the table.
        return torch.minimum(places_N, pieces.positions_N).clamp_min(0).masked_fill(is_padding_N, -1)

    def _is_frozen_in(self, dtype: torch.dtype) -> bool:
        """Whether nothing here up to the dropout is trained, and all of it is in this dtype, and in the kernel."""
        if self.task_type is not None or self.position is None:
            return False
        tables = [table.weight for table in (self.word, self.position, self.token_type) if table is not None]
        norm = (self.layernorm.weight, self.layernorm.bias)
        return not any(each.requires_grad for each in (*tables, *norm)) and all(t.dtype is dtype for t in tables)

    def _in_triton(self, pieces: Pieces) -> Tensor:
        from trainables.nn.kernels.triton.embedding import embed

        rates_K = self.dropout.rates_K
        drawn_from = None
        if rates_K is not None:
            drawn_from = self.dropout.keys_for(pieces.input_ids_N), self.dropout.site, rates_K
        assert self.position is not None  # or the kernel does not serve
        types = None if self.token_type is None else self.token_type.weight
        return embed(
            pieces.input_ids_N,
            self._positions(pieces),
            pieces.token_types_N,
            (self.word.weight, self.position.weight, types),
            self.offset,
            self.layernorm.weight,
            self.layernorm.bias,
            self.layernorm.eps,
            drawn_from,
        )


def _embedding(rows: int, width: int) -> nn.Embedding:
    """What `nn.Embedding` makes, without importing torch's compiler where there is no memory to initialise."""
    weight = torch.empty(rows, width)
    if not weight.is_meta:
        weight.normal_()
    return nn.Embedding.from_pretrained(weight, freeze=False)


class SelfAttention(nn.Module):
    """Attention within each sequence over projected queries, keys and values, with dropout of its probabilities."""

    def __init__(self, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = Dropout(dropout)

    def forward(self, qkv_NE: Tensor, pieces: Pieces, added: Added | None = None) -> Tensor:
        """(N, D) of (N, 3D)."""
        rates_K = self.dropout.rates_K
        keys = None if rates_K is None or self.dropout.keys is None else self.dropout.keys.of_rows
        return attend(qkv_NE, self.num_heads, pieces.sequences, keys, self.dropout.site, rates_K, added)

    def first(
        self, query_SD: Tensor, key_ND: Tensor, value_ND: Tensor, pieces: Pieces, added: Added | None = None
    ) -> Tensor:
        """What each sequence's first token attends to (S, D), with the masks it has in `forward`."""
        rates_K = self.dropout.rates_K
        keys = None if rates_K is None or self.dropout.keys is None else self.dropout.keys.of_rows
        sequences, site = pieces.sequences, self.dropout.site
        return attend_first(query_SD, key_ND, value_ND, self.num_heads, sequences, keys, site, rates_K, added)


class Attention(nn.Module):
    """Multi-head self-attention up to, not including, its output projection."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.attend = SelfAttention(shape.num_heads, shape.attention_dropout)
        self.relative = relative_scores(shape)

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        qkv_N3D, added = self.qkv(hidden_ND), None
        if self.relative is not None:
            query_ND, key_ND, _ = qkv_N3D.chunk(3, dim=1)
            added = self.relative((query_ND, key_ND), self.qkv, pieces)
        attended: Tensor = self.attend(qkv_N3D, pieces, added)
        return attended

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        """What each sequence's first token attends to (S, D): its query, everyone's keys and values."""
        width = hidden_ND.shape[-1]
        if isinstance(self.qkv, Linear) and self.qkv.is_plain:
            weight, bias = self.qkv.weight.to(hidden_ND.dtype), self.qkv.bias.to(hidden_ND.dtype)
            linear = frozen_linear if self.qkv.is_frozen_in(hidden_ND.dtype) else F.linear
            query_SD = linear(pieces.first(hidden_ND), weight[:width], bias[:width])
            key_ND, value_ND = linear(hidden_ND, weight[width:], bias[width:]).split(width, dim=-1)
        else:
            query_ND, key_ND, value_ND = self.qkv(hidden_ND).split(width, dim=-1)
            query_SD = pieces.first(query_ND)
        added = None if self.relative is None else self.relative((query_SD, key_ND), self.qkv, pieces)
        return self.attend.first(query_SD, key_ND, value_ND, pieces, added)


class SublayerOutput(nn.Module):
    """The end of a sub-layer: LN(x + Adapter(Dropout(W h + b))), without an adapter until a method sets one.

    The order is that of the paper's released code: the adapter sees the dropped-out projection, has its own skip,
    and comes before the sub-layer's residual and LayerNorm. It is called with the dropped-out projection, the residual
    x and the LayerNorm, so that adapters of other placements find what they read.
    """

    def __init__(self, in_width: int, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = Linear(in_width, shape.hidden_size)
        self.dropout = Dropout(shape.hidden_dropout)
        self.adapter: nn.Module | None = None
        self.layernorm = LayerNorm(shape.hidden_size, shape.layer_norm_eps)

    def forward(self, hidden_NI: Tensor, residual_ND: Tensor) -> Tensor:
        return self.finish(self.dense(hidden_NI), residual_ND)

    def finish(self, projected_ND: Tensor, residual_ND: Tensor) -> Tensor:
        """What follows the projection W h + b."""
        if self.adapter is None:
            return self.layernorm.after_dropout(projected_ND, residual_ND, self.dropout)
        changed_ND = self.adapter(self.dropout(projected_ND), residual_ND, self.layernorm)
        return self.layernorm(changed_ND, residual_ND)


class Branch(nn.Module):
    """What a method puts beside a layer."""

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        """What is added (N, D)."""
        raise NotImplementedError

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        """The same for each sequence's first token alone (S, D)."""
        return pieces.first(self(hidden_ND, pieces))


class EncoderLayer(nn.Module):
    """One Transformer layer: attention and feed-forward, each with its residual and LayerNorm.

    A method may set a `branch` beside the whole layer: what it makes of the layer's input is added before the last
    LayerNorm. Like the layer itself it can answer for the first token alone.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.attention_output = SublayerOutput(shape.hidden_size, shape)
        self.intermediate = Linear(shape.hidden_size, shape.intermediate_size)
        self.activation = ACTIVATIONS[shape.activation]
        self.feedforward_output = SublayerOutput(shape.intermediate_size, shape)
        self.branch: Branch | None = None

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        beside = None if self.branch is None else self.branch(hidden_ND, pieces)
        return self._feed_forward(self.attention_output(self.attention(hidden_ND, pieces), hidden_ND), beside)

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        """The first token's output (S, D) alone, where that is all a classifier reads of the last layer."""
        beside = None if self.branch is None else self.branch.first(hidden_ND, pieces)
        attended_SD = self.attention.first(hidden_ND, pieces)
        return self._feed_forward(self.attention_output(attended_SD, pieces.first(hidden_ND)), beside)

    def _feed_forward(self, hidden_ND: Tensor, beside: Tensor | None) -> Tensor:
        residual = hidden_ND if beside is None else hidden_ND + beside
        up, down = self.intermediate, self.feedforward_output.dense
        if up.is_frozen_in(hidden_ND.dtype) and down.is_frozen_in(hidden_ND.dtype):
            weights = (up.weight, up.bias, down.weight, down.bias)
            return self.feedforward_output.finish(feed_forward(hidden_ND, weights, self.activation), residual)
        return self.feedforward_output(self.activation(up(hidden_ND)), residual)
