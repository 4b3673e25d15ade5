"""The adapted encoder as its users build it: transformers' BERT with Houlsby adapters in plain torch.

The same trained model as adaptune's method `adapter`: two adapters a layer after the sub-layer's projection and
dropout, every LayerNorm and a linear head on the frozen pooler. Knows nothing of adaptune.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification


class Adapter(nn.Module):
    """x + W2 gelu(W1 x + b1) + b2."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.up(F.gelu(self.down(hidden), approximate="tanh"))


def adapted_bert(configuration: Mapping[str, Any], *, adapter_size: int, num_labels: int) -> nn.Module:
    """A model with random weights of which the adapters, LayerNorms and head are trained."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**configuration, num_labels=num_labels))
    model.requires_grad_(False)
    for layer in model.bert.encoder.layer:
        for output in (layer.attention.output, layer.output):
            output.dropout = nn.Sequential(output.dropout, Adapter(model.config.hidden_size, adapter_size))
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or ".dropout.1." in name or name.startswith("classifier"):
            parameter.requires_grad = True
    return model
