"""The adapted encoder with its head: what one pack of trials trains.

Suffixes: K trials, S = K*B sequences, D hidden width, C outputs (classes, or 1 for regression).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.dropout import Dropout
from trainables.encoder import Encoder, Prefix
from trainables.initialisation import parameter_device, truncated_normal, zeros
from trainables.methods import get_method, parse_options


class Head(nn.Module):
    """K linear classifiers on the pooled first token; weights truncated normal 0.02, biases zero, as released."""

    def __init__(self, width: int, num_outputs: int, generators: Sequence[torch.Generator], device: torch.device):
        super().__init__()
        self.weight = truncated_normal((width, num_outputs), 0.02, generators, device)
        self.bias = zeros(len(generators), (num_outputs,), device)

    def forward(self, pooled_SD: Tensor) -> Tensor:
        num_trials, width, num_outputs = self.weight.shape
        pooled_KBD = pooled_SD.float().view(num_trials, -1, width)
        return torch.baddbmm(self.bias[:, None], pooled_KBD, self.weight).view(-1, num_outputs)


class AdaptedModel(nn.Module):
    """K trials over one encoder view: encoder, pooler where it has one, dropout, head."""

    def __init__(self, encoder: Encoder, head: Head, *, has_trial_axes: bool) -> None:
        super().__init__()
        self.has_trial_axes = has_trial_axes  # of everything trained in the encoder; False for packs of one
        self.encoder = encoder
        self.dropout = Dropout(encoder.shape.hidden_dropout)
        self.head = head

    def forward(
        self,
        input_ids_SL: Tensor,
        token_types_SL: Tensor,
        lengths_S: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Logits (S, C) in float32."""
        hidden_SD = self.encoder(input_ids_SL, token_types_SL, lengths_S, prefix)
        pooler = self.encoder.pooler
        pooled_SD = hidden_SD if pooler is None else torch.tanh(pooler(hidden_SD))
        return self.head(self.dropout(pooled_SD))


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Counted from the tensors: `trained` is what gets gradients, head included, for one trial."""

    trained: int
    trained_without_head: int
    total: int


def stack_key(config: TrialConfig) -> tuple[str, Hashable] | None:
    """Equal for trials that one model can hold stacked; None where a trial's weights are its alone."""
    key = get_method(config.method).stack_key(parse_options(config.method, config.method_options))
    return None if key is None else (config.method, key)


def build_model(encoder: Encoder, configs: Sequence[TrialConfig], num_outputs: int) -> AdaptedModel:
    """A model for a pack of trials of one stack key, initialised from the trials' seeds; without dropout until a
    training connects its streams.

    Raises `ValueError` where the trials cannot share a pack, since their private modules differ.
    """
    keys = {stack_key(config) for config in configs}
    if len(keys) > 1 or (len(configs) > 1 and None in keys):
        raise ValueError(f"these trials cannot share a pack: {sorted(map(str, keys))}")
    device = parameter_device(encoder)
    view = encoder.view()
    generators = [torch.Generator().manual_seed(derive_seed(config.seed, "initialisation")) for config in configs]
    options = [parse_options(config.method, config.method_options, encoder.shape) for config in configs]
    get_method(configs[0].method).adapt(view, options, generators)
    head = Head(encoder.shape.hidden_size, num_outputs, generators, device)
    return AdaptedModel(view, head, has_trial_axes=None not in keys)


def count_parameters(model: AdaptedModel, num_trials: int = 1) -> ParameterCounts:
    """Count a model's tensors; those of K trials count once for each."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = sum(p.numel() for p in model.head.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return ParameterCounts(
        trained=trained // num_trials,
        trained_without_head=(trained - head) // num_trials,
        total=frozen + trained // num_trials,
    )


def derive_seed(seed: int, purpose: str) -> int:
    """An independent seed for each purpose of one trial's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big") >> 1
