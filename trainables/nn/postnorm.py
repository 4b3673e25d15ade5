"""The layers of the BERT family: a LayerNorm stands behind each residual.

Suffixes: S sequences, N rows (word pieces), D hidden width.
"""

from __future__ import annotations

from torch import Tensor

from trainables.nn.dropout import Dropout
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.layers import Attention, EncoderLayer, SublayerOutput, layernorm_of
from trainables.nn.linear import Linear
from trainables.nn.pieces import Pieces


class PostNormOutput(SublayerOutput):
    """LN(x + Adapter(Dropout(W h + b))), where the sub-layer reads x."""

    def __init__(self, in_width: int, shape: EncoderShape, *, has_bias: bool) -> None:
        super().__init__(in_width, shape, Dropout(shape.hidden_dropout), has_bias=has_bias)
        self.layernorm = layernorm_of(shape.hidden_size, shape)

    def forward(self, projected_ND: Tensor, residual_ND: Tensor) -> Tensor:
        """What follows the projection W h + b."""
        if self.adapter is None:
            return self.layernorm.after_dropout(projected_ND, residual_ND, self.dropout)
        changed_ND = self.adapter(self.dropout(projected_ND), residual_ND, self.layernorm, residual_ND)
        return self.layernorm(changed_ND, residual_ND)


class PostNormLayer(EncoderLayer):
    """A layer of the BERT family, with a LayerNorm behind each residual.

    Layers of the same weights hold the same products and LayerNorms; their adapters, branches and dropout are their
    own.
    """

    def __init__(self, shape: EncoderShape, layer: int = 0, weights: PostNormLayer | None = None) -> None:
        """`weights`: the layer whose weights it has; its own where None."""
        super().__init__(shape)
        self.attention = Attention(shape, layer)
        self.attention_output = PostNormOutput(shape.hidden_size, shape, has_bias=shape.has_attention_bias)
        self.intermediate = Linear(shape.hidden_size, shape.up_width, bias=shape.has_feedforward_bias)
        self.feedforward_output = PostNormOutput(shape.intermediate_size, shape, has_bias=shape.biases_down)
        self.inner_dropout = Dropout(shape.hidden_dropout) if shape.drops_gated else None
        if weights is not None:
            self.attention.qkv, self.intermediate = weights.attention.qkv, weights.intermediate
            for place in ("attention_output", "feedforward_output"):
                mine, theirs = getattr(self, place), getattr(weights, place)
                mine.dense, mine.layernorm = theirs.dense, theirs.layernorm

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        beside = None if self.branch is None else self.branch(hidden_ND, pieces)
        return self._feed_forward(self._attend(self.attention(hidden_ND, pieces), hidden_ND), beside, pieces)

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        beside = None if self.branch is None else self.branch.first(hidden_ND, pieces)
        attended_SD = self.attention.first(hidden_ND, pieces)
        return self._feed_forward(self._attend(attended_SD, pieces.first(hidden_ND)), beside, None)

    def _attend(self, attended_ND: Tensor, residual_ND: Tensor) -> Tensor:
        output = self.attention_output
        return output(output.dense(attended_ND), residual_ND)

    def _feed_forward(self, hidden_ND: Tensor, beside: Tensor | None, pieces: Pieces | None) -> Tensor:
        residual_ND = hidden_ND if beside is None else hidden_ND + beside
        return self.feedforward_output(self._project(hidden_ND, pieces, self.inner_dropout), residual_ND)
