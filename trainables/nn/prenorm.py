"""The layers of pre-norm encoders such as ModernBERT: LayerNorms stand before the sub-layers.

What a sub-layer gives is added to a stream that runs from the embeddings to a LayerNorm above the last layer.

Suffixes: S sequences, N rows (word pieces), D hidden width.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainables.nn.dropout import Dropout
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.layers import Attention, EncoderLayer, SublayerOutput, layernorm_of
from trainables.nn.linear import Linear
from trainables.nn.pieces import Pieces


class PreNormOutput(SublayerOutput):
    """x + Adapter(Dropout(W h + b)), where the sub-layer reads LN(x)."""

    def forward(self, projected_ND: Tensor, residual_ND: Tensor, layernorm: nn.Module, read_ND: Tensor) -> Tensor:
        """What follows the projection W h + b."""
        changed_ND = self.dropout(projected_ND)
        if self.adapter is not None:
            changed_ND = self.adapter(changed_ND, residual_ND, layernorm, read_ND)
        return changed_ND + residual_ND


class NoNorm(nn.Module):
    """What stands in a LayerNorm's place where there is none."""

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor | None = None) -> Tensor:
        return hidden_ND if residual_ND is None else hidden_ND + residual_ND


class PreNormLayer(EncoderLayer):
    """A layer of ModernBERT: LayerNorms before the sub-layers, whose results are added to what runs through all layers.

    The lowest layer's attention reads the embeddings as they are, which are normalised. Dropout is that of ModernBERT:
    of what attention gives, at the rate of its probabilities, and within feed-forward.
    """

    def __init__(self, shape: EncoderShape, layer: int) -> None:
        super().__init__(shape)
        width = shape.hidden_size
        has_bias = shape.has_attention_bias, shape.has_feedforward_bias
        self.attention_norm = layernorm_of(width, shape) if layer else NoNorm()
        self.attention = Attention(shape, layer)
        self.attention_output = PreNormOutput(width, shape, Dropout(shape.attention_dropout), has_bias=has_bias[0])
        self.feedforward_norm = layernorm_of(width, shape)
        self.intermediate = Linear(width, shape.up_width, bias=has_bias[1])
        self.inner_dropout = Dropout(shape.hidden_dropout)
        nothing = Dropout(0.0, is_fixed=True)
        self.feedforward_output = PreNormOutput(shape.intermediate_size, shape, nothing, has_bias=has_bias[1])

    def forward(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        read_ND = self.attention_norm(hidden_ND)
        beside = None if self.branch is None else self.branch(read_ND, pieces)
        return self._add(self.attention(read_ND, pieces), hidden_ND, read_ND, beside, pieces)

    def first(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        read_ND = self.attention_norm(hidden_ND)
        beside = None if self.branch is None else self.branch.first(read_ND, pieces)
        attended_SD = self.attention.first(read_ND, pieces)
        return self._add(attended_SD, pieces.first(hidden_ND), pieces.first(read_ND), beside, None)

    def _add(
        self, attended_ND: Tensor, hidden_ND: Tensor, read_ND: Tensor, beside: Tensor | None, pieces: Pieces | None
    ) -> Tensor:
        """The layer's result, of what attention makes of `read_ND`."""
        output = self.attention_output
        hidden_ND = output(output.dense(attended_ND), hidden_ND, self.attention_norm, read_ND)
        read_ND = self.feedforward_norm(hidden_ND)
        projected_ND = self._project(read_ND, pieces, self.inner_dropout)
        residual_ND = hidden_ND if beside is None else hidden_ND + beside
        return self.feedforward_output(projected_ND, residual_ND, self.feedforward_norm, read_ND)
