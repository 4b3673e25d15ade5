"""Relative positions: scores with something added, and packs whose attention weighs distances."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factories import trial_config
from tests.pieces import drop_out, laid_out
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import Disentangled, EncoderShape, RelativeBias
from trainables.nn.kernels.attention import Added, attend, attend_first
from trainables.nn.pieces import Pieces
from trainables.training.model import AdaptedModel, build_model

SHAPE = EncoderShape(
    model_type="deberta-v2",
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=24,
    max_positions=40,
    type_vocab_size=0,
    embedding_size=16,
    has_pooler=False,
    pooling="first",
)
OWN = Disentangled(
    span=40,
    max_distance=0,
    content_to_position=True,
    position_to_content=True,
    shares_projections=False,
    has_layernorm=False,
)
SHARED = dataclasses.replace(OWN, span=8, max_distance=40, shares_projections=True, has_layernorm=True)
DESIGNS = {
    "bias": RelativeBias(num_rows=32),
    "own": OWN,
    "shared": SHARED,
    "one-part": dataclasses.replace(OWN, content_to_position=False),
}
METHODS: dict[str, dict[str, Any]] = {
    "adapter": {"adapter_size": 4, "init_std": 0.1},
    "bitfit": {},
    "layernorm": {},
    "lora": {"rank": 2, "targets": "query,key,value"},
}
LENGTHS = [[9, 4, 30], [3, 17, 1]]


def encoder(design: RelativeBias | Disentangled) -> Encoder:
    shape = dataclasses.replace(SHAPE, relative=design)
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3
        for name, parameter in Encoder(shape).named_parameters()
    }
    return Encoder(shape, masters).load(torch.device("cpu"), torch.float32)


def batch(*trials: int) -> Pieces:
    """The texts of some trials."""
    lengths = torch.tensor([LENGTHS[trial] for trial in trials])
    ids = torch.stack([torch.arange(90).view(3, 30) * (trial + 3) % 36 + 4 for trial in trials])
    return laid_out(ids.flatten(0, 1), None, lengths.flatten(), num_trials=len(trials))


def gradients(model: AdaptedModel, output: Tensor) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(output.square().sum(), list(trained.values()), retain_graph=True)
    return dict(zip(trained, found, strict=True))


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.thinned
def test_trials_of_a_pack_compute_what_each_computes_alone(design: str, method: str, pooling: str) -> None:
    backbone = encoder(DESIGNS[design])
    options = {**METHODS[method], "pooling": pooling}
    configs = [trial_config(method, method_options=options, seed=seed, dropout=0.2) for seed in (3, 4)]
    together = build_model(backbone, configs, 3).train()
    pieces = batch(0, 1)
    drop_out(together, pieces, seeds=(3, 4))
    outputs = together(pieces).view(2, 3, -1)
    for place, config in enumerate(configs):
        alone = build_model(backbone, [config], 3).train()
        own = dict(alone.named_parameters())
        with torch.no_grad():
            for name, parameter in together.named_parameters():
                if parameter.requires_grad:
                    own[name].copy_(parameter[place : place + 1].view_as(own[name]))
        mine = batch(place)
        drop_out(alone, mine, seeds=(3 + place,))
        output = alone(mine)
        torch.testing.assert_close(outputs[place], output, rtol=0, atol=2e-6)
        # At another step other elements are dropped, those of distances among them.
        drop_out(alone, mine, seeds=(3 + place,), step=1)
        assert (alone(mine) - output).abs().max() > 1e-3
        packed = gradients(together, outputs[place])
        for name, gradient in gradients(alone, output).items():
            mine_of_pack = packed[name][place : place + 1].view_as(gradient)
            torch.testing.assert_close(mine_of_pack, gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("design", DESIGNS)
def test_texts_of_one_word_piece_are_read_by_it(design: str) -> None:
    view = encoder(DESIGNS[design]).view().eval()
    pieces = laid_out(torch.tensor([[5], [6]]))
    first = view(pieces)
    view.pooling = "tokens"
    torch.testing.assert_close(first, view(pieces), rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_is_added_to_scores_has_its_gradient(is_shared: bool) -> None:
    pieces = laid_out(torch.zeros(2, 8, dtype=torch.long), None, torch.tensor([8, 5]))
    assert len(pieces.sequences.groups) == 1
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(13, 24, generator=generator, requires_grad=True)
    more = torch.randn(1 if is_shared else 2, 2, 8, 8, generator=generator, requires_grad=True)

    def plain(first_only: bool) -> Tensor:
        found = []
        for sequence, rows in enumerate((slice(0, 8), slice(8, 13))):
            query, key, value = (part.view(-1, 2, 4).transpose(0, 1) for part in qkv[rows].chunk(3, dim=1))
            own = more[0 if is_shared else sequence, :, : key.shape[1], : key.shape[1]]
            attended = ((query @ key.transpose(1, 2)) * 0.3 + own).softmax(dim=-1) @ value
            found.append(attended.transpose(0, 1).flatten(1)[: 1 if first_only else None])
        return torch.cat(found)

    added = Added(scale=0.3, groups=(more,))
    query, key, value = qkv.chunk(3, dim=1)
    firsts = Added(scale=0.3, groups=(more[:, :, :1],))
    pairs = [
        (attend(qkv, 2, pieces.sequences, None, 0, added=added), plain(False)),
        (attend_first(query[[0, 8]], key, value, 2, pieces.sequences, None, 0, added=firsts), plain(True)),
    ]
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
        upstream = torch.randn(ours.shape, generator=generator)
        gradients = [
            torch.autograd.grad(output, (qkv, more), upstream, retain_graph=True) for output in (ours, expected)
        ]
        for mine, plain_one in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, plain_one, rtol=0, atol=1e-6)


def test_dropout_within_projections_that_distances_share_is_refused() -> None:
    from trainables.methods.lora import Options

    options = Options(lora_dropout=0.1)
    assert options.faults(dataclasses.replace(SHAPE, relative=OWN)) == []
    (fault,) = options.faults(dataclasses.replace(SHAPE, relative=SHARED))
    assert "lora_dropout: must be 0 on a backbone that projects distances" in fault
