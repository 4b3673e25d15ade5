"""The opponents' model with random weights: adapters of plain torch in transformers' BERT. Knows nothing of adaptune.

The same trained model as adaptune's method `adapter` where the head reads the frozen pooler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel

from benchmarks.opponents.adapter_bert import AdapterBert


def adapted_bert(configuration: Mapping[str, Any], *, adapter_size: int, num_labels: int) -> nn.Module:
    """A model with random weights of which the adapters, LayerNorms and head are trained."""
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**configuration))
    return AdapterBert(bert, adapter_size=adapter_size, num_labels=num_labels)
