"""The adapted encoder with its head: what one pack of trials trains.

Suffixes: K trials, S = K*B sequences, N rows (word pieces), D hidden width, C outputs (classes, or 1 for regression).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.methods import ALONE, get_method, parse_options, read_pooling, stack_key_of
from trainables.metrics import TaskKind
from trainables.nn.batchnorm import BatchNorm
from trainables.nn.dropout import Dropout, StepKeys, number_sites
from trainables.nn.encoder import Encoder, Prefix
from trainables.nn.initialisation import parameter_device, truncated_normal, zeros
from trainables.nn.pieces import Pieces
from trainables.training.loss import NOWHERE


class Head(nn.Module):
    """K classifiers on what is read of the encoder: linear, or with one hidden layer (GELU) where it has a size.

    Weights are truncated normal 0.02, biases zero, as in the paper's released code.
    """

    def __init__(
        self,
        width: int,
        num_outputs: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
        hidden_size: int = 0,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        if hidden_size:
            self.hidden_weight = truncated_normal((width, hidden_size), 0.02, generators, device)
            self.hidden_bias = zeros(len(generators), (hidden_size,), device)
        self.weight = truncated_normal((hidden_size or width, num_outputs), 0.02, generators, device)
        self.bias = zeros(len(generators), (num_outputs,), device)

    def forward(self, states: Tensor) -> Tensor:
        """Outputs (S, C) of (S, D), or (N, C) of (N, D), in float32."""
        num_trials, _, num_outputs = self.weight.shape
        rows_KND = states.float().reshape(num_trials, -1, states.shape[-1])
        if self.hidden_size:
            rows_KND = F.gelu(torch.baddbmm(self.hidden_bias[:, None], rows_KND, self.hidden_weight))
        return torch.baddbmm(self.bias[:, None], rows_KND, self.weight).view(*states.shape[:-1], num_outputs)


@runtime_checkable
class Penalised(Protocol):
    """A module whose weights cost something in each trial's loss."""

    def penalty(self) -> Tensor:
        """The cost (K,)."""
        ...


@runtime_checkable
class Follower(Protocol):
    """A module that has something to do after each step; its trials train in packs of one."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Called with the trained masters in place and, as their `grad`, what they were moved by. It may change them.

        `step` counts from 1 to `num_steps`.
        """
        ...


class AdaptedModel(nn.Module):
    """K trials over one encoder view: encoder, dropout, head."""

    def __init__(self, encoder: Encoder, head: Head, *, has_trial_axes: bool) -> None:
        super().__init__()
        self.has_trial_axes = has_trial_axes  # of everything trained in the encoder; False for packs of one
        self.encoder = encoder
        rate = encoder.shape.head_dropout
        self.dropout = Dropout(encoder.shape.hidden_dropout if rate is None else rate)
        self.head = head
        self.has_features = encoder.gives_features
        self._sites = number_sites(self)
        # Asked of classes, whose answers Python keeps; of each module it would look anew.
        modules = [(module, type(module)) for module in encoder.modules()]
        self._penalised = [cast(Penalised, module) for module, kind in modules if issubclass(kind, Penalised)]
        self.followers = [cast(Follower, module) for module, kind in modules if issubclass(kind, Follower)]

    @property
    def num_trials(self) -> int:
        return self.head.weight.shape[0]

    def train(self, mode: bool = True) -> AdaptedModel:
        super().train(mode)
        if self.has_features:  # computed once a row; dropout would make them another thing at every step
            self.encoder.eval()
        return self

    def drop_out(self, keys: StepKeys | None) -> None:
        """Draw the masks of every site from these keys from now on, or drop nothing."""
        for site in self._sites:
            site.keys = keys

    def forward(self, pieces: Pieces, prefix: Prefix | None = None) -> Tensor:
        """Logits in float32: (S, C), or with the pooling "tokens" (S, L, C), where padding has a large negative one."""
        outputs: Tensor = self.head(self.dropout(self.encoder(pieces, prefix)))
        return pieces.pad(outputs, NOWHERE) if self.encoder.pooling == "tokens" else outputs

    def penalty(self) -> Tensor | None:
        """What each trial's loss has beside the examples' (K,); None where no module asks for any."""
        penalties = [module.penalty() for module in self._penalised]
        return torch.stack(penalties).sum(dim=0) if penalties else None


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Counted from the tensors: `trained` is what gets gradients, head included, for one trial."""

    trained: int
    trained_without_head: int
    total: int


def statistics_of(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The buffers that are state of each trial, as (module, name): what normalisation has seen of its batches."""
    modules = [module for module in model.modules() if isinstance(module, BatchNorm)]
    return [(module, name) for module in modules for name, _ in module.named_buffers(recurse=False)]


def frozen_buffers(model: nn.Module, *, statistics: bool = True) -> dict[str, Tensor]:
    """Tensors that are neither trained nor the backbone's, such as adapters another trial has trained; each once."""
    left_out = set() if statistics else {id(getattr(module, name)) for module, name in statistics_of(model)}
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():  # leaves out buffers that are computed
        if not isinstance(tensor, nn.Parameter) and id(tensor) not in left_out:
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def stack_key(config: TrialConfig) -> tuple[str, Hashable] | None:
    """Equal for trials that one model can hold stacked; None where a trial's weights are its alone."""
    options = parse_options(config.method, config.method_options)
    key = stack_key_of(config.method, options)
    return None if key is ALONE else (config.method, (getattr(options, "pooling", None), key))


def build_model(
    encoder: Encoder, configs: Sequence[TrialConfig], num_outputs: int, *, kind: TaskKind = "classification"
) -> AdaptedModel:
    """A model for a pack of trials of one stack key and a task of this kind, initialised from the trials' seeds.

    It is without dropout until a training gives it keys.

    Raises `ValueError` where the trials cannot share a pack, since their private modules differ.
    """
    keys = {stack_key(config) for config in configs}
    if len(keys) > 1 or (len(configs) > 1 and None in keys):
        raise ValueError(f"these trials cannot share a pack: {sorted(map(str, keys))}")
    device = parameter_device(encoder)
    view = encoder.view()
    generators = [torch.Generator().manual_seed(derive_seed(config.seed, "initialisation")) for config in configs]
    options = [parse_options(config.method, config.method_options, encoder.shape) for config in configs]
    # Of an answer that is a place in the text, every word piece is read.
    view.pooling = "tokens" if kind == "extractive_qa" else read_pooling(options[0], encoder.shape)
    if view.pooling != "pooler":
        view.pooler = None  # nobody reads it, so no method shall train it
    get_method(configs[0].method).adapt(view, options, generators)
    head = Head(view.width, num_outputs, generators, device, view.head_hidden_size)
    return AdaptedModel(view, head, has_trial_axes=None not in keys)


def count_parameters(model: AdaptedModel, num_trials: int = 1) -> ParameterCounts:
    """Count a model's tensors; those of K trials count once for each."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = sum(p.numel() for p in model.head.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    frozen += sum(buffer.numel() for buffer in frozen_buffers(model, statistics=False).values())
    return ParameterCounts(
        trained=trained // num_trials,
        trained_without_head=(trained - head) // num_trials,
        total=frozen + trained // num_trials,
    )


def derive_seed(seed: int, purpose: str) -> int:
    """An independent seed for each purpose of one trial's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big") >> 1
