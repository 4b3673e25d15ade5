"""Layers that are not BERT's: where adapters stand in a pre-norm layer, and what layers of shared weights share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.factories import trial_config
from tests.pieces import laid_out, sublayer_outputs
from trainables.backbones.loading import load_backbone
from trainables.nn.adapters import PLACEMENTS
from trainables.nn.encoder import Encoder
from trainables.nn.layers import EncoderLayer
from trainables.nn.prenorm import PreNormLayer
from trainables.training.model import AdaptedModel, build_model, count_parameters

Checkpoint = Callable[[str], Path]
IDS = torch.randint(4, 64, (2, 12), generator=torch.Generator().manual_seed(1))


def load(folder: Path) -> Encoder:
    return load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32).encoder.eval()


def adapted(encoder: Encoder, **options: str | int | float) -> AdaptedModel:
    """A model whose adapters are far from the identity."""
    values = {"adapter_size": 4, "init_std": 0.3, "pooling": "first", **options}
    return build_model(encoder, [trial_config(method_options=values)], 2).eval()


def layer_of(model: AdaptedModel, index: int) -> EncoderLayer:
    layer = model.encoder.layers[index]
    assert isinstance(layer, EncoderLayer)
    return layer


def change(adapter: torch.nn.Module, read: Tensor) -> Tensor:
    """s W2 f(W1 . + b1) + b2, of the first trial."""
    hidden = adapter.activation(read @ adapter.down_proj[0] + adapter.down_bias[0])
    return (hidden @ adapter.up_proj[0] + adapter.up_bias[0]) * adapter.scale


class TestPreNorm:
    @pytest.mark.parametrize("placement", PLACEMENTS)
    @torch.no_grad()
    def test_a_layer_with_adapters_is_what_its_formula_says(self, placement: str, checkpoint: Checkpoint) -> None:
        model = adapted(load(checkpoint("modernbert-biased")), placement=placement)
        layer, pieces = layer_of(model, 1), laid_out(IDS)
        assert isinstance(layer, PreNormLayer)
        stream = torch.randn(24, 16, generator=torch.Generator().manual_seed(2))
        expected = stream
        attended = layer.attention_output.dense(layer.attention(layer.attention_norm(stream), pieces))
        for end, norm in ((layer.attention_output, layer.attention_norm), (layer.feedforward_output, None)):
            norm = norm or layer.feedforward_norm
            x = expected
            h = attended if end is layer.attention_output else layer._project(norm(x), None)
            expected = h + x
            if end.adapter is not None:
                reads = {"projection": h, "normalised": norm(h + x), "input": norm(x)}[PLACEMENTS[placement][2]]
                expected = expected + change(end.adapter, reads)
        torch.testing.assert_close(layer(stream, pieces), expected, rtol=0, atol=1e-5)
        assert (expected - stream).abs().max() > 0.1

    @torch.no_grad()
    def test_what_is_read_of_the_first_token_is_its_row_of_all(self, checkpoint: Checkpoint) -> None:
        encoder, pieces = load(checkpoint("modernbert-biased")), laid_out(IDS)
        for placement in PLACEMENTS:
            view = adapted(encoder, placement=placement).encoder
            first = view(pieces)
            view.pooling = "tokens"
            torch.testing.assert_close(first, pieces.first(view(pieces)), rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_layers_above_a_prefix_go_on_where_it_ends(self, checkpoint: Checkpoint) -> None:
        from trainables.nn.encoder import Prefix

        view = load(checkpoint("modernbert-biased")).view()
        pieces = laid_out(IDS)
        for pooling in ("first", "mean"):
            view.pooling = pooling
            for num_layers in range(view.shape.num_layers + 1):
                prefix = Prefix(hidden=view.run_prefix(pieces, num_layers), num_layers=num_layers)
                torch.testing.assert_close(view(pieces, prefix), view(pieces), rtol=0, atol=1e-5)

    def test_bf16_stays_near_float32(self, checkpoint: Checkpoint) -> None:
        folder, pieces = checkpoint("modernbert"), laid_out(IDS)
        low = load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.bfloat16).encoder.eval()
        with torch.no_grad():
            torch.testing.assert_close(low(pieces).float(), load(folder)(pieces), rtol=0.05, atol=0.2)

    def test_the_checkpoint_says_what_a_head_reads(self, checkpoint: Checkpoint) -> None:
        assert load(checkpoint("modernbert")).shape.pooling == "first"
        assert load(checkpoint("modernbert-biased")).shape.pooling == "mean"


class TestSharedWeights:
    """A random ALBERT of three layers, of which the lowest two share their weights."""

    def test_a_layer_s_adapters_are_its_own(self, checkpoint: Checkpoint) -> None:
        model = adapted(load(checkpoint("albert-groups")))
        adapters = {id(end.adapter) for end in sublayer_outputs(model.encoder)}
        assert len(adapters) == 6
        assert layer_of(model, 0).attention.qkv is layer_of(model, 1).attention.qkv
        assert layer_of(model, 0).attention.qkv is not layer_of(model, 2).attention.qkv

    @pytest.mark.parametrize(("num_layers", "distinct"), [(1, 1), (2, 2), (3, 2)])
    def test_top_layers_get_a_copy_of_what_they_share(
        self, num_layers: int, distinct: int, checkpoint: Checkpoint
    ) -> None:
        encoder = load(checkpoint("albert-groups"))
        config = trial_config("top_layers", method_options={"num_layers": num_layers})
        model = build_model(encoder, [config], 2)
        shape = encoder.shape
        params = distinct * shape.layer_params + shape.pooler_params
        params += shape.embedding_params if num_layers == 3 else 0
        assert count_parameters(model).trained_without_head == params
        is_trained = [layer_of(model, index).intermediate.weight.requires_grad for index in range(3)]
        assert is_trained == [index >= 3 - num_layers for index in range(3)]
        assert model.encoder.num_frozen_layers == 3 - num_layers
        values = encoder.masters["layers.0.intermediate.weight"]
        assert all(torch.equal(layer_of(model, index).intermediate.weight, values) for index in (0, 1))

    def test_a_step_moves_all_layers_that_share_what_is_trained(self, checkpoint: Checkpoint) -> None:
        model = build_model(load(checkpoint("albert-groups")), [trial_config("full_finetuning", method_options={})], 2)
        first, second = layer_of(model, 0), layer_of(model, 1)
        assert first.intermediate.weight is second.intermediate.weight
        assert first.attention_output.layernorm is second.attention_output.layernorm
        names = [name for name, _ in model.encoder.named_parameters() if name.endswith("intermediate.weight")]
        assert names == ["layers.0.intermediate.weight", "layers.2.intermediate.weight"]
