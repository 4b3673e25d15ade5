"""The parts of an encoder: embeddings, attention and what all kinds of layers have.

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
from trainables.nn.feedforward import feed_forward, gate
from trainables.nn.kernels import triton
from trainables.nn.kernels.attention import Added, attend, attend_first
from trainables.nn.kernels.frozen_product import frozen_linear
from trainables.nn.kernels.local_attention import attend_locally
from trainables.nn.kernels.rotary import rotate
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
    """Word, position and token-type embeddings, as many of them as the model has, summed and normalised."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.offset = shape.position_offset
        self.word = _embedding(shape.vocab_size, shape.embedding_size)
        self.position = _embedding(shape.max_positions, shape.embedding_size) if shape.embeds_positions else None
        types = shape.type_vocab_size
        self.token_type = _embedding(types, shape.embedding_size) if types else None
        tasks = shape.task_type_vocab_size
        self.task_type = _embedding(tasks, shape.embedding_size) if tasks else None
        self.layernorm = layernorm_of(shape.embedding_size, shape)
        self.dropout = Dropout(shape.hidden_dropout if shape.embedding_dropout is None else shape.embedding_dropout)
        project = shape.projects_embeddings
        self.project = Linear(shape.embedding_size, shape.hidden_size) if project else None
        self.relative = relative_table(shape)

    def forward(self, pieces: Pieces, dtype: torch.dtype) -> Tensor:
        """Hidden states (N, D)."""
        if self.position is not None and triton.serves(self.word.weight) and self._is_frozen_in(dtype):
            hidden_ND = self._in_triton(pieces, self.position)
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
        norm = list(self.layernorm.parameters())
        is_plain = type(self.layernorm) is LayerNorm and not any(each.requires_grad for each in (*tables, *norm))
        return is_plain and all(table.dtype is dtype for table in tables)

    def _in_triton(self, pieces: Pieces, position: nn.Embedding) -> Tensor:
        from trainables.nn.kernels.triton.embedding import embed

        assert self.layernorm.bias is not None  # only rotary models lack it
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
            (self.word.weight, position.weight, types),
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


def layernorm_of(width: int, shape: EncoderShape) -> LayerNorm:
    """A LayerNorm as the encoder has them."""
    return LayerNorm(width, shape.layer_norm_eps, has_bias=shape.has_norm_bias)


class SelfAttention(nn.Module):
    """Attention within each sequence over projected queries, keys and values, with dropout of its probabilities.

    With a `window` other than 0, a word piece sees those alone that stand at most so far from it.
    """

    def __init__(self, num_heads: int, dropout: float, window: int = 0) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.dropout = Dropout(dropout)

    def is_local(self, pieces: Pieces) -> bool:
        """Whether the window hides anything from anyone."""
        return 0 < self.window < pieces.sequences.longest - 1

    def forward(self, qkv_NE: Tensor, pieces: Pieces, added: Added | None = None) -> Tensor:
        """(N, D) of (N, 3D)."""
        rates_K = self.dropout.rates_K
        keys = None if rates_K is None or self.dropout.keys is None else self.dropout.keys.of_rows
        if self.is_local(pieces):
            where = self.window, pieces.sequences
            return attend_locally(qkv_NE, self.num_heads, *where, keys, self.dropout.site, rates_K)
        return attend(qkv_NE, self.num_heads, pieces.sequences, keys, self.dropout.site, rates_K, added)

    def first(
        self, query_SD: Tensor, key_ND: Tensor, value_ND: Tensor, pieces: Pieces, added: Added | None = None
    ) -> Tensor:
        """What each sequence's first token attends to (S, D), with the masks it has in `forward`.

        Not for batches in which the attention is local.
        """
        rates_K = self.dropout.rates_K
        keys = None if rates_K is None or self.dropout.keys is None else self.dropout.keys.of_rows
        sequences, site = pieces.sequences, self.dropout.site
        return attend_first(query_SD, key_ND, value_ND, self.num_heads, sequences, keys, site, rates_K, added)


class Attention(nn.Module):
    """Multi-head self-attention up to, not including, its output projection."""

    def __init__(self, shape: EncoderShape, layer: int = 0) -> None:
        super().__init__()
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size, bias=shape.has_attention_bias)
        window = shape.windows[layer] if shape.windows else 0
        self.attend = SelfAttention(shape.num_heads, shape.attention_dropout, window)
        self.theta = shape.thetas[layer] if shape.thetas else None
        self.relative = relative_scores(shape)

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        qkv_N3D, added = self._placed(self.qkv(hidden_ND), pieces, num_parts=2), None
        if self.relative is not None:
            query_ND, key_ND, _ = qkv_N3D.chunk(3, dim=1)
            added = self.relative((query_ND, key_ND), self.qkv, pieces, is_first=False)
        attended: Tensor = self.attend(qkv_N3D, pieces, added)
        return attended

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        """What each sequence's first token attends to (S, D): its query, everyone's keys and values."""
        width = hidden_ND.shape[-1]
        if self.attend.is_local(pieces):
            return pieces.first(self(hidden_ND, pieces))
        if isinstance(self.qkv, Linear) and self.qkv.is_plain:
            weight = self.qkv.weight.to(hidden_ND.dtype)
            bias = None if self.qkv.bias is None else self.qkv.bias.to(hidden_ND.dtype)
            linear = frozen_linear if self.qkv.is_frozen_in(hidden_ND.dtype) else F.linear
            of_query, of_others = (None, None) if bias is None else (bias[:width], bias[width:])
            query_SD = linear(pieces.first(hidden_ND), weight[:width], of_query)
            key_ND, value_ND = linear(hidden_ND, weight[width:], of_others).split(width, dim=-1)
        else:
            query_ND, key_ND, value_ND = self.qkv(hidden_ND).split(width, dim=-1)
            query_SD = pieces.first(query_ND)
        key_ND = self._placed(key_ND, pieces, num_parts=1)  # the first token's query stands at 0: nothing is turned
        added = None
        if self.relative is not None:
            added = self.relative((query_SD, key_ND), self.qkv, pieces, is_first=True)
        return self.attend.first(query_SD, key_ND, value_ND, pieces, added)

    def _placed(self, rows_NX: Tensor, pieces: Pieces, num_parts: int) -> Tensor:
        """Rows whose first parts, queries or keys, know their positions, where those are rotary."""
        if self.theta is None:
            return rows_NX
        width = self.qkv.out_features // 3
        return rotate(rows_NX, pieces.angles(self.theta, width // self.attend.num_heads), num_parts * width)


class SublayerOutput(nn.Module):
    """The end of a sub-layer: Dropout(W h + b), an adapter where a method sets one, and the residual.

    The order is that of the paper's released code: the adapter sees the dropped-out projection, has its own skip,
    and comes before the sub-layer's residual. It is called with the dropped-out projection, the residual x, the
    sub-layer's LayerNorm and what the sub-layer reads, so that adapters of other placements find what they read.
    """

    def __init__(self, in_width: int, shape: EncoderShape, dropout: Dropout, *, has_bias: bool) -> None:
        super().__init__()
        self.dense = Linear(in_width, shape.hidden_size, bias=has_bias)
        self.dropout = dropout
        self.adapter: nn.Module | None = None


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

    A method may set a `branch` beside the whole layer: what it makes of what the layer's attention reads is added to
    the residual of feed-forward. Like the layer itself it can answer for the first token alone.
    """

    attention: Attention
    attention_output: SublayerOutput
    intermediate: Linear
    feedforward_output: SublayerOutput

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[shape.activation]
        self.is_gated = shape.is_gated
        self.branch: Branch | None = None

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        raise NotImplementedError

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        """The first token's output (S, D) alone, where that is all a classifier reads of the last layer."""
        raise NotImplementedError

    def _project(self, read_ND: Tensor, pieces: Pieces | None, dropout: Dropout | None = None) -> Tensor:
        """Feed-forward up to and with its second product, with dropout before that where the model has any.

        `pieces`: what the rows are; None where each is a sequence's first.
        """
        up, down = self.intermediate, self.feedforward_output.dense
        drops = dropout is not None and dropout.rates_K is not None
        if up.is_frozen_in(read_ND.dtype) and down.is_frozen_in(read_ND.dtype) and not drops:
            weights = (up.weight, up.bias, down.weight, down.bias)
            wanted = None if pieces is None else pieces.filled
            return feed_forward(read_ND, weights, self.activation, is_gated=self.is_gated, wanted=wanted)
        inner_NU = up(read_ND)
        inner_NI = gate(inner_NU, self.activation) if self.is_gated else self.activation(inner_NU)
        projected: Tensor = down(inner_NI if dropout is None else dropout(inner_NI))
        return projected
