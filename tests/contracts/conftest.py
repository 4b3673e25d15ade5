"""What the contract of methods is tested on: every method and its variants, on a small random encoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.pieces import laid_out
from trainables.config import Scalar, TrialConfig
from trainables.methods import method_names
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import Disentangled, EncoderShape, RelativeBias
from trainables.nn.pieces import Pieces

SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=3,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    type_vocab_size=2,
    embedding_size=16,
)
DISENTANGLED = Disentangled(
    span=8,
    max_distance=20,
    content_to_position=True,
    position_to_content=True,
    shares_projections=False,
    has_layernorm=True,
)
# What differs in the arithmetic of trained parameters: no pooler, no token types, embeddings that are projected,
# tables and projections of distances, layers with other norms and few or no biases, layers that share their weights.
SHAPES = {
    "bert": SHAPE,
    "distilbert": dataclasses.replace(SHAPE, model_type="distilbert", type_vocab_size=0, has_pooler=False),
    "electra-small": dataclasses.replace(SHAPE, model_type="electra", embedding_size=8, has_pooler=False),
    "mpnet": dataclasses.replace(
        SHAPE, model_type="mpnet", type_vocab_size=0, position_offset=2, relative=RelativeBias(num_rows=32)
    ),
    "deberta-v2": dataclasses.replace(SHAPE, model_type="deberta-v2", has_pooler=False, relative=DISENTANGLED),
    "gte": dataclasses.replace(
        SHAPE,
        model_type="gte",
        has_pooler=False,
        embeds_positions=False,
        is_gated=True,
        has_feedforward_bias=False,
        has_down_bias=True,
        drops_gated=True,
        thetas=(100.0,) * 3,
    ),
    "modernbert": dataclasses.replace(
        SHAPE,
        model_type="modernbert",
        type_vocab_size=0,
        has_pooler=False,
        is_pre_norm=True,
        is_gated=True,
        has_attention_bias=False,
        has_feedforward_bias=False,
        has_norm_bias=False,
        embeds_positions=False,
        thetas=(100.0, 10.0, 10.0),
        windows=(0, 2, 2),
    ),
    "albert": dataclasses.replace(
        SHAPE, model_type="albert", embedding_size=8, has_projection=True, weights_of=(0, 0, 1)
    ),
}
# Where a method has nothing to work on: the family, the method and what it says instead.
REFUSED = {
    ("modernbert", "bitfit"): "`layernorm` trains",
    ("modernbert", "peft"): "`lora`",
    ("albert", "peft"): "`lora`",
    ("gte", "peft"): "`lora`",
}
_ADAPTER: dict[str, Scalar] = {"adapter_size": 4, "init_std": 0.1}
# Designs that compute something else, by the method's name and what is special.
VARIANTS: dict[str, tuple[str, dict[str, Scalar]]] = {
    **{
        f"adapter-{placement}": ("adapter", {**_ADAPTER, "placement": placement})
        for placement in ("pfeiffer", "parallel", "attention_only", "feedforward_only")
    },
    "adapter-multiply": ("adapter", {**_ADAPTER, "interaction": "multiply"}),
    "adapter-deep": ("adapter", {**_ADAPTER, "depth": 3, "norm": "layer", "activation": "tanh"}),
    "adapter-batch-norm": ("adapter", {**_ADAPTER, "depth": 2, "norm": "batch"}),
    "adapter-some-layers": ("adapter", {**_ADAPTER, "layers": "0,2", "train_layernorms": False, "pooling": "first"}),
    "adapter-mean": ("adapter", {**_ADAPTER, "pooling": "mean"}),
    "feature_based-hidden": ("feature_based", {"pooling": "first", "head_hidden_size": 5}),
    "lora-everywhere": ("lora", {"rank": 2, "targets": "query,key,value,output,up,down"}),
    "pals-layernorms": ("pals", {"size": 4, "num_heads": 2, "init_std": 0.1, "train_layernorms": True}),
}


NUM_OUTPUTS = 3


@functools.cache
def _encoder(shape: EncoderShape, dtype: torch.dtype) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(shape).named_parameters()
    }
    return Encoder(shape, masters).load(torch.device("cpu"), dtype)


class Case(NamedTuple):
    """A method with options that suit the small encoder."""

    method: str
    options: dict[str, Scalar]

    def config(self, seed: int = 0, **values: Any) -> TrialConfig:
        return TrialConfig(
            task="any", backbone="any", method=self.method, method_options=self.options, seed=seed, **values
        )


class Small(NamedTuple):
    """A small encoder and what can be put through it."""

    shapes: dict[str, EncoderShape]
    num_outputs: int

    @staticmethod
    def encoder(shape: EncoderShape = SHAPE, dtype: torch.dtype = torch.float32) -> Encoder:
        """An encoder as a checkpoint gives it, with random values. Frozen: no test may change it."""
        return _encoder(shape, dtype)

    @staticmethod
    def batches(num_trials: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One padded batch (2, 7) a trial: ids, token types and lengths, which differ between trials."""
        generator = torch.Generator().manual_seed(3)
        found = []
        for trial in range(num_trials):
            lengths = torch.tensor([7, 4 - trial])
            ids = torch.randint(4, SHAPE.vocab_size, (2, 7), generator=generator)
            found.append((ids.masked_fill(torch.arange(7) >= lengths[:, None], 0), torch.zeros_like(ids), lengths))
        return found

    @staticmethod
    def alone(num_trials: int) -> list[Pieces]:
        """Each trial's batch by itself."""
        return [laid_out(*batch) for batch in Small.batches(num_trials)]

    @staticmethod
    def stacked(num_trials: int) -> Pieces:
        """The batches of all trials; the segments of all but the longest end in dummy rows."""
        ids, types, lengths = (torch.cat(parts) for parts in zip(*Small.batches(num_trials), strict=True))
        return laid_out(ids, types, lengths, num_trials=num_trials)


@pytest.fixture(params=[*method_names(), *VARIANTS])
def case(request: pytest.FixtureRequest, small_options: Callable[[str, Encoder], dict[str, Scalar]]) -> Case:
    method, options = VARIANTS.get(request.param, (request.param, None))
    return Case(method, small_options(method, Small.encoder()) if options is None else options)


@pytest.fixture(params=method_names())
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> Small:
    return Small(SHAPES, NUM_OUTPUTS)
