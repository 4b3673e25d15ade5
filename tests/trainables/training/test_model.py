"""The adapted model: where the paper puts its parts, how they start, and whose seed they are drawn from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.pieces import drop_out, laid_out, sublayer_outputs
from trainables.backbones.loading import Backbone
from trainables.config import Scalar, TrialConfig
from trainables.methods import method_names
from trainables.nn.adapters import Adapter
from trainables.nn.dropout import Dropout
from trainables.nn.pieces import Pieces
from trainables.training.model import AdaptedModel, build_model, count_parameters, derive_seed, stack_key

LENGTHS = torch.tensor([8, 3, 5])


def config(method: str = "adapter", seed: int = 0, dropout: float | None = None, **options: Scalar) -> TrialConfig:
    small: dict[str, Scalar] = {"adapter_size": 4} if method == "adapter" else {}
    return TrialConfig(
        task="any", backbone="any", method=method, method_options=small | options, seed=seed, dropout=dropout
    )


def build(backbone: Backbone, *configs: TrialConfig, num_outputs: int = 3) -> AdaptedModel:
    return build_model(backbone.encoder, configs or [config()], num_outputs)


def padded() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(4, 64, (3, 8), generator=torch.Generator().manual_seed(5))
    types = (torch.arange(8) >= 3).long().expand(3, 8)
    return ids.masked_fill(torch.arange(8) >= LENGTHS[:, None], 0), types, LENGTHS


def batch() -> Pieces:
    return laid_out(*padded())


def randomise(model: AdaptedModel) -> None:
    """Move every trained tensor away from where it starts, so that each one shows in the output."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


def reference_logits(model: AdaptedModel, backbone: Backbone) -> Tensor:
    """Houlsby et al. 2019 in a few lines: frozen tensors from the backbone, trained ones from the model."""
    frozen, trained = dict(backbone.encoder.named_parameters()), dict(model.encoder.named_parameters())
    shape = backbone.info.shape

    def dense(name: str, hidden: Tensor) -> Tensor:
        return hidden @ frozen[f"{name}.weight"].T + frozen[f"{name}.bias"]

    def layernorm(name: str, hidden: Tensor) -> Tensor:
        weight, bias = trained[f"{name}.weight"][0], trained[f"{name}.bias"][0]
        centred = hidden - hidden.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + shape.layer_norm_eps).sqrt() * weight + bias

    def adapter(name: str, hidden: Tensor) -> Tensor:
        down, down_bias, up, up_bias = (
            trained[f"{name}.adapter.{part}"][0] for part in ("down_proj", "down_bias", "up_proj", "up_bias")
        )
        inner = hidden @ down + down_bias
        gelu = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        return hidden + gelu @ up + up_bias

    ids, types, lengths = padded()
    embedded = frozen["embeddings.word.weight"][ids] + frozen["embeddings.token_type.weight"][types]
    hidden = layernorm("embeddings.layernorm", embedded + frozen["embeddings.position.weight"][: ids.shape[1]])
    visible = (torch.arange(ids.shape[1]) < lengths[:, None])[:, None, None]
    for i in range(shape.num_layers):
        layer = f"layers.{i}"
        heads = dense(f"{layer}.attention.qkv", hidden).view(*ids.shape, 3, shape.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads.shape[-1])
        attended = (scores.masked_fill(~visible, -math.inf).softmax(-1) @ heads[2]).transpose(1, 2).flatten(2)
        output = f"{layer}.attention_output"
        hidden = layernorm(f"{output}.layernorm", hidden + adapter(output, dense(f"{output}.dense", attended)))
        inner = F.gelu(dense(f"{layer}.intermediate", hidden))
        output = f"{layer}.feedforward_output"
        hidden = layernorm(f"{output}.layernorm", hidden + adapter(output, dense(f"{output}.dense", inner)))
    pooled = torch.tanh(dense("pooler", hidden[:, 0]))
    return pooled @ model.head.weight[0] + model.head.bias[0]


@torch.no_grad()
def test_adapters_stand_exactly_where_the_paper_puts_them(backbone: Backbone) -> None:
    model = build(backbone, config(adapter_size=5)).eval()
    start = model(batch())
    randomise(model)
    torch.testing.assert_close(model(batch()), reference_logits(model, backbone), rtol=0, atol=1e-5)
    assert (model(batch()) - start).abs().max() > 0.1


@torch.no_grad()
def test_an_adapter_sees_the_dropped_out_projection(backbone: Backbone) -> None:
    model = build(backbone).train()
    pieces = laid_out(torch.full((2, 50), 5))
    drop_out(model, pieces)
    output = sublayer_outputs(model.encoder)[0]
    seen: list[Tensor] = []
    output.adapter.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    hidden, residual = torch.randn(100, 16), torch.randn(100, 16)
    projected = output.dense(hidden)
    output(projected, residual)
    dropped = seen[0] == 0
    assert 0.03 < dropped.float().mean() < 0.2
    torch.testing.assert_close(seen[0][~dropped], (projected / 0.9)[~dropped])


@torch.no_grad()
def test_adapters_start_near_the_identity_and_the_nearer_the_smaller_they_start(backbone: Backbone) -> None:
    encoder = backbone.encoder.eval()
    plain = encoder(batch())
    distances = []
    for init_std in (1e-1, 1e-2, 1e-3, 0.0):
        view = build(backbone, config(adapter_size=8, init_std=init_std)).encoder.eval()
        distances.append((view(batch()) - plain).abs().max().item())
        assert distances[-1] <= 200 * init_std**2 + 1e-5  # two factors of init_std, then float32
    assert distances[0] > 10 * distances[1] > 0
    assert distances[3] < 1e-5


def test_adapters_and_heads_start_as_the_paper_s(backbone: Backbone) -> None:
    model = build_model(backbone.encoder, [config(adapter_size=16, init_std=0.05)], 200)
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    assert len(adapters) == 2 * backbone.info.shape.num_layers
    weights = torch.cat([part.flatten() for each in adapters for part in (each.down_proj, each.up_proj)])
    for values, std in ((weights, 0.05), (model.head.weight, 0.02)):
        assert values.abs().max() <= 2 * std * (1 + 1e-6)
        assert values.std().item() == pytest.approx(0.8796 * std, rel=0.06)
    biases = [bias for each in adapters for bias in (each.down_bias, each.up_bias)]
    assert not any(bias.any() for bias in (*biases, model.head.bias))


@pytest.mark.parametrize("method", method_names())
def test_what_starts_at_random_is_decided_by_the_seed(backbone: Backbone, small_options: Any, method: str) -> None:
    options = small_options(method, backbone.encoder)
    first, again, other = (build(backbone, config(method, seed=seed, **options)) for seed in (1, 1, 2))
    state, same = first.state_dict(), again.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_building_a_model_leaves_the_global_random_numbers_alone(backbone: Backbone) -> None:
    before = torch.random.get_rng_state()
    model = build(backbone).train()
    drop_out(model, batch())
    model(batch())
    assert torch.equal(torch.random.get_rng_state(), before)


@torch.no_grad()
def test_dropout_is_the_backbone_s_own_unless_a_trial_has_its_own(backbone: Backbone) -> None:
    def dropped(rate: float | None) -> float:
        """The share that the first sub-layer's projection loses in training."""
        model = build(backbone).train()
        drop_out(model, batch(), rates=[rate])
        seen: list[Tensor] = []
        sublayer_outputs(model.encoder)[0].adapter.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(batch())
        return (seen[0] == 0).float().mean().item()

    assert dropped(None) == pytest.approx(0.1, abs=0.05)
    assert dropped(0.6) == pytest.approx(0.6, abs=0.1)
    assert dropped(0.0) == 0
    # The shared encoder drops nothing: what has keys belongs to a view.
    assert all(module.keys is None for module in backbone.encoder.modules() if isinstance(module, Dropout))


@torch.no_grad()
def test_without_dropout_training_computes_what_evaluation_does(backbone: Backbone) -> None:
    dry = build(backbone)
    expected = dry.eval()(batch())
    torch.testing.assert_close(dry.train()(batch()), expected)  # no keys
    drop_out(dry, batch(), rates=[0.0])
    torch.testing.assert_close(dry(batch()), expected)
    drop_out(dry, batch())
    assert not torch.allclose(dry(batch()), expected)
    torch.testing.assert_close(dry.eval()(batch()), expected)


def test_a_pack_counts_as_each_of_its_trials_does(backbone: Backbone) -> None:
    alone = count_parameters(build(backbone))
    pack = build(backbone, *(config(seed=seed) for seed in range(4)))
    assert count_parameters(pack, 4) == alone
    assert alone.trained - alone.trained_without_head == 3 * 17


def test_purposes_have_independent_seeds() -> None:
    seeds = {derive_seed(seed, purpose) for seed in range(50) for purpose in ("initialisation", "dropout")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, "dropout") == derive_seed(3, "dropout")


def test_trials_that_cannot_share_a_pack_are_refused(backbone: Backbone) -> None:
    for pack in (
        [config(adapter_size=2), config(adapter_size=4)],
        [config(), config("layernorm")],
        [config("top_layers"), config("top_layers")],  # private copies of backbone weights: packs of one
    ):
        with pytest.raises(ValueError, match="cannot share a pack"):
            build_model(backbone.encoder, pack, 2)


def test_trials_that_differ_in_numbers_alone_share_a_pack(backbone: Backbone) -> None:
    pack = [config(init_std=0.1), config(seed=4, init_std=0.0, dropout=0.3)]
    assert stack_key(pack[0]) == stack_key(pack[1])
    first, second = sublayer_outputs(build(backbone, *pack).encoder)[0].adapter.down_proj
    alone = sublayer_outputs(build(backbone, pack[0]).encoder)[0].adapter.down_proj[0]
    assert torch.equal(first, alone)
    assert first.any()
    assert not second.any()
    assert stack_key(config("top_layers")) is None


class TestMasks:
    """Masks are a function of a trial's seed and step, and of nothing else."""

    @torch.no_grad()
    def logits(self, backbone: Backbone, pieces: Pieces, seed: int, step: int, pooling: str = "pooler") -> Tensor:
        model = build(backbone, config(pooling=pooling, init_std=0.3)).train()
        drop_out(model, pieces, [seed], [0.3], step)
        return model(pieces)

    def test_the_same_seed_and_step_have_the_same_and_others_others(self, backbone: Backbone) -> None:
        first = self.logits(backbone, batch(), 1, 5)
        torch.manual_seed(3)
        assert torch.equal(self.logits(backbone, batch(), 1, 5), first)
        assert not torch.allclose(self.logits(backbone, batch(), 1, 6), first)
        assert not torch.allclose(self.logits(backbone, batch(), 2, 5), first)

    def test_no_two_sites_share_one(self, backbone: Backbone) -> None:
        model = build(backbone).train()
        drop_out(model, batch())
        sites = [module for module in model.modules() if isinstance(module, Dropout)]
        assert [site.site for site in sites] == list(range(len(sites)))
        assert len(sites) == 1 + 3 * backbone.info.shape.num_layers + 1  # embeddings, layers, before the head
        ones = torch.ones(batch().num_rows, 64)
        masks = {tuple(site(ones).flatten().tolist()) for site in sites}
        assert len(masks) == len(sites)

    @torch.no_grad()
    def test_the_first_token_alone_is_dropped_as_it_is_among_all(self, backbone: Backbone) -> None:
        """The last layer is computed for the first token alone where that is all a head reads."""
        model = build(backbone, config(pooling="first", init_std=0.3)).train()
        pieces = batch()
        drop_out(model, pieces, [1], [0.3], 5)
        alone = model.encoder(pieces)
        among = model.encoder.run_prefix(pieces, backbone.info.shape.num_layers)[pieces.first_rows_S]
        torch.testing.assert_close(alone, among, rtol=0, atol=1e-5)
        drop_out(model, pieces, [1], [0.3], 6)
        assert not torch.allclose(model.encoder(pieces), alone)

    def test_the_head_s_dropout_differs_from_trial_to_trial(self, backbone: Backbone) -> None:
        model = build(backbone, config(seed=0), config(seed=1)).train()
        ids, types, lengths = padded()
        pieces = laid_out(ids.repeat(2, 1), types.repeat(2, 1), lengths.repeat(2), num_trials=2)
        drop_out(model, pieces, [0, 1], [0.5, 0.5])
        first, second = model.dropout(torch.ones(6, 64)).view(2, 3, 64)
        assert not torch.equal(first, second)
