"""Encoders of no family are computed by transformers' own classes, for the methods that change no layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.factories import trial_config
from tests.pieces import drop_out, laid_out
from trainables import metrics
from trainables.backbones import shape_of
from trainables.backbones.loading import describe_backbone, load_backbone
from trainables.data.tokenized import TokenizedSplit
from trainables.faults import FaultsError
from trainables.methods import get_method, parse_options
from trainables.nn.encoder import Encoder
from trainables.training.model import build_model, count_parameters
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

LENGTHS = torch.tensor([9, 4, 2, 9, 1])
# One with rotary positions, one that counts them from the padding, one with norms before the sub-layers, one of others'
# names.
KINDS = ["roformer", "roberta-prelayernorm", "megatron-bert", "squeezebert"]
Checkpoint = Callable[[str], Path]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Encoder:
    return load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=dtype).encoder.eval()


def inputs(padding: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(4, 60, (5, 9), generator=torch.Generator().manual_seed(1))
    is_word = torch.arange(9) < LENGTHS[:, None]
    return ids.masked_fill(~is_word, padding), is_word


def rows() -> TokenizedSplit:
    """Sixteen texts of four word pieces, of two classes."""
    ids = np.tile(np.array([[2, 4, 9, 3], [2, 5, 9, 3]], np.int32), (8, 1))
    return TokenizedSplit(
        offsets=np.arange(17) * 4,
        input_ids=ids.ravel(),
        token_type_ids=np.zeros(64, np.int8),
        labels=np.arange(16) % 2,
    )


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Path:
    return checkpoint(request.param)


@torch.no_grad()
def test_the_hidden_states_are_those_of_transformers_own_model(folder: Path) -> None:
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    view = load(folder).view()
    ids, is_word = inputs(reference.config.pad_token_id or 0)
    expected = reference(input_ids=ids, attention_mask=is_word.long()).last_hidden_state
    pieces = laid_out(ids, None, LENGTHS)
    for pooling, read in (("tokens", expected[is_word]), ("first", expected[:, 0])):
        view.pooling = pooling
        torch.testing.assert_close(view(pieces), read, rtol=0, atol=1e-5)
    assert expected[is_word].std() > 0.1


def test_every_weight_but_the_pooler_s_is_counted_and_trained(folder: Path) -> None:
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(folder, local_files_only=True)
    params = sum(p.numel() for name, p in reference.named_parameters() if not name.startswith("pooler"))
    encoder = load(folder)
    assert encoder.shape == describe_backbone(str(folder)).shape
    assert encoder.shape.params == params == sum(p.numel() for p in encoder.parameters())
    config = trial_config("full_finetuning", method_options={})
    counts = count_parameters(build_model(encoder, [config], 2))
    assert counts.trained_without_head == params
    assert get_method("full_finetuning").trained_params(encoder.shape, None) == params
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("method", ["full_finetuning", "feature_based"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trial_learns_and_leaves_the_backbone_as_it_is(
    method: str, dtype: torch.dtype, checkpoint: Checkpoint
) -> None:
    encoder = load(checkpoint("roformer"), dtype)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    split = rows()
    config = trial_config(method, method_options={}, learning_rate=1e-2, num_epochs=8, batch_size=8)
    pack = Pack(encoder, {"train": split, "validation": split}, 2)
    trial = RunningTrial(Job(config=config, done=lambda outcome: None), len(split))
    pack.join([trial])
    losses = []
    for _ in trial.batches:
        pack.step()
        if trial.has_ended_epoch:
            (report,) = pack.end_epochs([trial], metrics.get("accuracy"))
            losses.append(report.validation["loss"])
    assert losses[-1] < losses[0]
    assert all(torch.equal(parameter, before[name]) for name, parameter in encoder.named_parameters())


def test_dropout_is_the_trial_s_own_and_follows_from_its_step(checkpoint: Checkpoint) -> None:
    encoder = load(checkpoint("roformer"))
    pieces = laid_out(inputs(0)[0], None, LENGTHS)
    config = trial_config("full_finetuning", method_options={})
    model = build_model(encoder, [config], 2).train()

    def outputs(rate: float | None, step: int) -> Tensor:
        drop_out(model, pieces, [0], [rate], step)
        return model(pieces)

    torch.manual_seed(5)
    first = outputs(0.5, 1)
    torch.manual_seed(6)
    assert torch.equal(outputs(0.5, 1), first)
    assert not torch.allclose(outputs(0.5, 2), first)
    assert not torch.allclose(outputs(None, 1), first)
    assert torch.equal(outputs(0.0, 1), outputs(0.0, 2))
    assert torch.equal(outputs(0.0, 1), model.eval()(pieces))


def test_batches_of_a_model_that_asks_the_host_are_laid_out_there_on_a_gpu_too(checkpoint: Checkpoint) -> None:
    """Its dropout is seeded by the host at each step, which a recorded step could not be."""
    config = trial_config("full_finetuning", method_options={}, batch_size=4)
    pack = Pack(load(checkpoint(KINDS[0])), {"train": rows()}, 2)
    pack.join([RunningTrial(Job(config=config, done=lambda outcome: None), len(rows()))])
    pack.gathers_on_device = True  # as on a GPU
    assert not pack._gathers()


@pytest.mark.parametrize("method", ["adapter", "lora", "top_layers", "layernorm", "bitfit"])
def test_methods_that_change_layers_are_refused_with_those_that_do_not(method: str, checkpoint: Checkpoint) -> None:
    shape = describe_backbone(str(checkpoint("roformer"))).shape
    able = "feature_based, full_finetuning, linear_probe"
    with pytest.raises(FaultsError, match=f"method {method} changes layers.*{able}"):
        parse_options(method, {}, shape)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is a decoder"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "'bart' is an encoder with a decoder"),
        ({"model_type": "t5"}, "'t5' is an encoder with a decoder"),
        ({"model_type": "vit"}, "'vit' is no encoder of texts"),
        ({"model_type": "roformer", "hidden_act": "none such"}, "do not make a roformer of its config.json"),
        ({"model_type": "roformer", "hidden_size": "wide"}, r"hidden_size must be a whole number in .* but got 'wide'"),
    ],
)
def test_what_is_no_encoder_of_texts_is_refused_by_name(config: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        shape_of(config)


@pytest.mark.parametrize(
    ("family", "values", "fault"),
    [
        ("fnet", {}, "reads padding"),
        ("roformer", {"is_decoder": True}, "is_decoder must be false"),
    ],
)
def test_what_does_not_read_a_text_as_an_encoder_does_is_refused(
    family: str, values: dict[str, Any], fault: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = checkpoint(family)
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, **values}), encoding="utf-8")
    with pytest.raises(FaultsError, match=fault):
        load(tmp_path)


def test_a_narrow_window_of_attention_is_not_taken_for_a_decoder_s(checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = checkpoint("longformer")
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "attention_window": [4, 4]}), encoding="utf-8")
    assert load(tmp_path).shape.model_type == "longformer"


@pytest.mark.parametrize(("family", "first"), [("longformer", 2), ("ibert", 2), ("xlm-roberta-xl", 2), ("big_bird", 0)])
@torch.no_grad()
def test_the_longest_text_is_the_one_its_positions_allow(family: str, first: int, checkpoint: Checkpoint) -> None:
    encoder = load(checkpoint(family))
    assert encoder.shape.max_length == encoder.shape.max_positions - first
    ids = torch.randint(4, 60, (1, encoder.shape.max_positions), generator=torch.Generator().manual_seed(1))
    encoder(laid_out(ids[:, : encoder.shape.max_length]))
    if first:
        with pytest.raises((IndexError, RuntimeError)):
            encoder(laid_out(ids))
