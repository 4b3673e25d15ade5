"""The opponents' models with random weights: transformers' BERT with what they train. Knows nothing of adaptune.

Both train what adaptune's method of that name does where the head reads the frozen pooler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel

from benchmarks.opponents.adapter_bert import AdapterBert, HeadedBert


def adapted_bert(configuration: Mapping[str, Any], *, adapter_size: int, num_labels: int) -> nn.Module:
    """With adapters in plain torch; they, the LayerNorms and the head are trained."""
    return AdapterBert(_random_bert(configuration), adapter_size=adapter_size, num_labels=num_labels)


def lora_bert(configuration: Mapping[str, Any], *, rank: int, alpha: int, num_labels: int) -> nn.Module:
    """With peft's LoRA of queries and values; it and the head are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=["query", "value"])
    return HeadedBert(inject_adapter_in_model(config, _random_bert(configuration)), num_labels=num_labels)


def _random_bert(configuration: Mapping[str, Any]) -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**configuration))
