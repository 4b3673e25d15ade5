"""Adapter-BERT as its users build it: transformers' BERT with the adapters of Houlsby et al. (2019) in plain torch.

Two adapters a layer after the sub-layer's projection and dropout, before its residual and LayerNorm; they, every
LayerNorm (the embeddings' too) and a linear head are trained, all else is frozen. Adapters are drawn from a normal of
0.01 truncated at two sigma, the head's weights from one of 0.02; biases begin at zero. Knows nothing of adaptune.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel
from transformers.modeling_outputs import SequenceClassifierOutput

ADAPTER_STD, HEAD_STD = 0.01, 0.02


class Adapter(nn.Module):
    """x + W2 gelu(W1 x + b1) + b2, of inputs (..., width)."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        for linear in (self.down, self.up):
            _initialise(linear, ADAPTER_STD)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.up(F.gelu(self.down(hidden), approximate="tanh"))


class HeadedBert(nn.Module):
    """An encoder, or one that a library has wrapped, with a classifier, for a `Trainer`.

    The head reads the pooler where the encoder has one, and otherwise the mean over the word pieces of a row; after
    dropout at the encoder's own rate, in float32 also under autocast.
    """

    def __init__(self, bert: nn.Module, *, num_labels: int) -> None:
        super().__init__()
        self.bert = bert
        self.dropout = nn.Dropout(bert.config.hidden_dropout_prob)
        self.classifier = nn.Linear(bert.config.hidden_size, num_labels)
        _initialise(self.classifier, HEAD_STD)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (rows, num_labels), and the mean cross-entropy where labels (rows,) are given."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        encoded = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        if self.bert.pooler is not None:
            read = encoded.pooler_output
        else:
            is_piece = attention_mask.unsqueeze(-1)
            read = (encoded.last_hidden_state * is_piece).sum(dim=1) / is_piece.sum(dim=1)
        with torch.autocast(read.device.type, enabled=False):
            logits = self.classifier(self.dropout(read.float()))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class AdapterBert(HeadedBert):
    """The encoder is changed in place: it gets adapters, and they, LayerNorms and the head are all that is trained."""

    def __init__(self, bert: BertModel, *, adapter_size: int, num_labels: int) -> None:
        super().__init__(bert, num_labels=num_labels)
        for name, parameter in bert.named_parameters():
            parameter.requires_grad = "LayerNorm" in name
        for layer in bert.encoder.layer:
            for output in (layer.attention.output, layer.output):
                output.dropout = nn.Sequential(output.dropout, Adapter(bert.config.hidden_size, adapter_size))


def _initialise(linear: nn.Linear, std: float) -> None:
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(linear.bias)
