"""Checkpoints: what does not fit is refused by name. What all families do is in tests/contracts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.pieces import laid_out
from trainables.backbones import families, map_tensors, shape_of
from trainables.backbones.loading import load_backbone


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(folder / "model.safetensors")


def test_query_key_and_value_are_joined_in_this_order(tiny_bert: Path) -> None:
    config, tensors = read(tiny_bert)
    mapped = map_tensors(shape_of(config), tensors)
    for leaf in ("weight", "bias"):
        joined = mapped[f"layers.1.attention.qkv.{leaf}"]
        for part, name in zip(joined.split(16), ("query", "key", "value"), strict=True):
            assert torch.equal(part, tensors[f"encoder.layer.1.attention.self.{name}.{leaf}"])


def test_the_old_names_of_layernorms_are_understood(tiny_bert: Path) -> None:
    config, tensors = read(tiny_bert)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    today, then = (map_tensors(shape_of(config), each) for each in (tensors, old))
    assert all(torch.equal(today[name], then[name]) for name in today)


def test_half_precision_checkpoints_become_float32(tiny_bert: Path) -> None:
    config, tensors = read(tiny_bert)
    mapped = map_tensors(shape_of(config), {name: tensor.half() for name, tensor in tensors.items()})
    assert {tensor.dtype for tensor in mapped.values()} == {torch.float32}


def test_a_checkpoint_may_lack_its_pooler(tiny_bert: Path) -> None:
    config, tensors = read(tiny_bert)
    mapped = map_tensors(shape_of(config), {name: t for name, t in tensors.items() if "pooler" not in name})
    assert not any(name.startswith("pooler") for name in mapped)
    assert "layers.1.intermediate.bias" in mapped


def test_a_foreign_model_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown model_type 'bort'") as refusal:
        shape_of({"model_type": "bort"})
    assert all(family in str(refusal.value) for family in families())


def test_a_configuration_without_a_size_is_refused(tiny_bert: Path) -> None:
    config, _ = read(tiny_bert)
    del config["intermediate_size"]
    with pytest.raises(ValueError, match="must hold 'intermediate_size'"):
        shape_of(config)


def test_an_unknown_activation_is_refused_with_the_known_ones(tiny_bert: Path) -> None:
    config, _ = read(tiny_bert)
    with pytest.raises(ValueError, match="unknown activation 'gelo'; did you mean 'gelu'"):
        shape_of({**config, "hidden_act": "gelo"})


def test_relative_positions_are_refused(tiny_bert: Path) -> None:
    config, _ = read(tiny_bert)
    with pytest.raises(ValueError, match="must be absolute, but got 'relative_key'"):
        shape_of({**config, "position_embedding_type": "relative_key"})


def test_a_model_type_that_is_nearly_a_known_one_is_not_taken_for_it() -> None:
    with pytest.raises(ValueError, match="unknown model_type 'mega_bert'") as refusal:
        shape_of({"model_type": "mega_bert"})
    assert "did you mean" not in str(refusal.value)


def test_a_decoder_is_refused(tiny_bert: Path) -> None:
    config, _ = read(tiny_bert)
    assert shape_of({**config, "is_decoder": False}) == shape_of(config)
    with pytest.raises(ValueError, match="is_decoder must be false"):
        shape_of({**config, "is_decoder": True})


@pytest.mark.parametrize("model_type", ["bert", "new"])
def test_code_of_a_repository_is_not_run(tiny_bert: Path, model_type: str) -> None:
    config, _ = read(tiny_bert)
    with pytest.raises(ValueError, match="needs code from its repository"):
        shape_of({**config, "model_type": model_type, "auto_map": {"AutoModel": "modeling.NewModel"}})


@pytest.mark.parametrize(
    ("family", "change", "fault"),
    [
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling must be cls or mean"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types must name 2 layers"),
        ("modernbert", {"local_attention": 1}, "local_attention must be 2 at least"),
        ("modernbert", {"num_attention_heads": 16}, "must be a multiple of twice num_attention_heads, 32"),
        ("modernbert", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type default, but got 'yarn'"),
        ("albert", {"inner_group_num": 2}, "inner_group_num must be 1"),
        ("albert", {"num_hidden_groups": 3}, r"num_hidden_groups must be in \[1, 2\]"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    family: str, change: dict[str, Any], fault: str, checkpoint: Callable[[str], Path]
) -> None:
    config, _ = read(checkpoint(family))
    with pytest.raises(ValueError, match=fault):
        shape_of({**config, **change})


@torch.no_grad()
def test_groups_of_an_albert_that_rounding_decides_are_those_of_transformers(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel

    source = checkpoint("albert")
    config = AutoConfig.from_pretrained(source, local_files_only=True, num_hidden_layers=18, num_hidden_groups=14)
    with torch.random.fork_rng():
        reference = AutoModel.from_config(config).eval()
    reference.save_pretrained(tmp_path)
    for path in source.glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    encoder = load_backbone(str(tmp_path), device=torch.device("cpu"), compute_dtype=torch.float32).encoder.eval()
    encoder.pooling = "tokens"
    ids = torch.arange(4, 12)[None]
    expected = reference(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(encoder(laid_out(ids)), expected, rtol=0, atol=1e-5)


def test_a_modernbert_says_its_positions_in_words_of_then_and_now(checkpoint: Callable[[str], Path]) -> None:
    config, _ = read(checkpoint("modernbert"))
    now = shape_of(config)
    plain = {name: value for name, value in config.items() if name not in ("layer_types", "rope_parameters")}
    then = {"global_attn_every_n_layers": 2, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}
    assert now.thetas == (160_000.0, 10_000.0)
    assert now.windows == (0, 4)
    assert shape_of({**plain, **then}) == now
    assert shape_of({**plain, **then, "local_rope_theta": None}).thetas == (160_000.0, 160_000.0)


@pytest.mark.parametrize(("value", "came"), [(None, "null"), ("0", "'0'")])
@pytest.mark.parametrize("family", ["roberta", "data2vec-text"])
def test_positions_that_count_from_the_padding_need_its_id(
    family: str, value: Any, came: str, checkpoint: Callable[[str], Path]
) -> None:
    config, _ = read(checkpoint(family))
    with pytest.raises(ValueError, match=f"pad_token_id of a {family} must be a whole number.* but got {came}"):
        shape_of({**config, "pad_token_id": value})


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.bert."])
def test_tensors_of_a_wrapper_are_refused_by_their_prefix(prefix: str, tiny_bert: Path) -> None:
    config, tensors = read(tiny_bert)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(ValueError, match=rf"puts '{prefix}' before \d+ of them: save the model that a wrapper"):
        map_tensors(shape_of(config), wrapped)


def test_a_tensor_of_the_model_that_ends_as_a_missing_one_is_no_prefix(checkpoint: Callable[[str], Path]) -> None:
    config, tensors = read(checkpoint("roberta-prelayernorm"))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("LayerNorm.")}
    with pytest.raises(ValueError, match=r"lacks 2: LayerNorm\.weight, LayerNorm\.bias"):
        map_tensors(shape_of(config), kept)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size of a deberta-v2 must be 0"),
        ({"embedding_size": 8}, "embedding_size of a deberta-v2 must be 16"),
        ({"pos_att_type": ["p2p"]}, "pos_att_type must be c2p, p2c or both"),
        ({"pos_att_type": None}, "pos_att_type must be c2p, p2c or both"),
        ({"relative_attention": False}, "pos_att_type must be left out"),
    ],
)
def test_what_is_not_computed_of_deberta_is_refused(
    values: dict[str, Any], fault: str, checkpoint: Callable[[str], Path]
) -> None:
    config, _ = read(checkpoint("deberta-v3"))
    with pytest.raises(ValueError, match=fault):
        shape_of({**config, **values})


def test_fewer_buckets_than_mpnet_has_are_refused(checkpoint: Callable[[str], Path]) -> None:
    config, _ = read(checkpoint("mpnet"))
    with pytest.raises(ValueError, match="must be at least 32, but got 16"):
        shape_of({**config, "relative_attention_num_buckets": 16})


def test_parts_of_a_deberta_s_attention_are_read_however_they_are_written(checkpoint: Callable[[str], Path]) -> None:
    config, _ = read(checkpoint("deberta-v2"))
    assert shape_of({**config, "pos_att_type": "C2P|p2c"}) == shape_of(config)
