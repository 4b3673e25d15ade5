"""What the head reads: by default what the checkpoint was trained to be read by, resolved before a trial is planned."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trainables
from tests.pieces import laid_out
from trainables.backbones.loading import POOLING_FILE, Backbone, describe_backbone, load_backbone
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.estimate.preview import complete_options
from trainables.faults import FaultsError
from trainables.methods import (
    get_method,
    identity_of,
    method_names,
    option_names,
    parse_options,
    read_pooling,
)
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.model import build_model, count_parameters

READING = [method for method in method_names() if "pooling" in option_names(method)]
# Those of which a part is trained anyway, and so would be a pooler.
TRAINING_POOLERS = ("full_finetuning", "top_layers", "bitfit")


def resolved(shape: EncoderShape, pooling: str = "auto", method: str = "adapter") -> str:
    return read_pooling(parse_options(method, {"pooling": pooling}), shape)


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the random BERT, to change at will."""
    return shutil.copytree(tiny_bert, tmp_path / "declaring")


def declare(folder: Path, text: str) -> Path:
    (folder / POOLING_FILE).parent.mkdir(exist_ok=True)
    (folder / POOLING_FILE).write_text(text, encoding="utf-8")
    return folder


def formula(config: TrialConfig, shape: EncoderShape) -> int:
    """The method's closed formula of what is trained and read."""
    options = parse_options(config.method, config.method_options)
    is_pooled = read_pooling(options, shape) == "pooler"
    return get_method(config.method).trained_params(dataclasses.replace(shape, has_pooler=is_pooled), options)


class TestResolving:
    @pytest.mark.parametrize(
        ("family", "pooling"),
        [
            ("bert", "pooler"),
            ("roberta", "first"),
            ("xlm-roberta", "first"),
            ("electra", "first"),
            ("electra-small", "first"),
            ("distilbert", "first"),
        ],
    )
    def test_a_family_is_read_by_what_its_pre_training_trained(
        self, family: str, pooling: str, checkpoint: Callable[[str], Path]
    ) -> None:
        assert resolved(describe_backbone(str(checkpoint(family))).shape) == pooling

    def test_the_packaged_minilm_declares_its_mean(self) -> None:
        shape = describe_backbone("minilm").shape
        assert shape.has_pooler
        assert resolved(shape) == "mean"
        assert resolved(shape, "pooler") == "pooler"

    @pytest.mark.parametrize(
        ("declared", "pooling"),
        [
            ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
            ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
            ({"pooling_mode": "mean"}, "mean"),
            ({"pooling_mode": "cls"}, "first"),
            ({"pooling_mode": "max"}, "pooler"),
            ({"pooling_mode_max_tokens": True}, "pooler"),
            ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "pooler"),
            ({"word_embedding_dimension": 16}, "pooler"),
        ],
    )
    def test_what_a_checkpoint_declares_comes_first_where_it_is_computed_here(
        self, declared: dict[str, Any], pooling: str, folder: Path
    ) -> None:
        assert resolved(describe_backbone(str(declare(folder, json.dumps(declared)))).shape) == pooling

    @pytest.mark.parametrize("text", ["{", "[1, 2]", '"mean"'])
    def test_a_declaration_that_is_damaged_is_one_clear_fault(self, text: str, folder: Path) -> None:
        declare(folder, text)
        with pytest.raises(FaultsError) as refusal:
            describe_backbone(str(folder))
        (fault,) = refusal.value.faults
        assert str(folder / POOLING_FILE) in fault
        assert "JSON" in fault

    @pytest.mark.parametrize("asked", ["auto", "pooler"])
    def test_the_first_token_stands_in_for_a_pooler_that_is_not_there(self, asked: str, backbone: Backbone) -> None:
        bare = dataclasses.replace(backbone.info.shape, has_pooler=False)
        assert resolved(bare, asked) == "first"

    @pytest.mark.parametrize("asked", ["first", "mean", "pooler"])
    def test_what_is_asked_for_is_read(self, asked: str, backbone: Backbone) -> None:
        declaring = dataclasses.replace(backbone.info.shape, pooling="mean")
        assert resolved(declaring, asked) == asked

    def test_another_word_is_refused_with_the_known_ones(self, backbone: Backbone) -> None:
        for method in READING:
            with pytest.raises(FaultsError) as refusal:
                parse_options(method, {"pooling": "max"}, backbone.info.shape)
            (fault,) = (fault for fault in refusal.value.faults if "pooling" in fault)
            assert fault.startswith(f"{method}.pooling: ")
            assert all(known in fault for known in ("auto", "first", "pooler", "mean"))


class TestPlanning:
    @pytest.mark.parametrize("method", [method for method in READING if method != "adapter_fusion"])
    def test_auto_and_what_it_resolves_to_are_one_configuration(self, method: str, backbone: Backbone) -> None:
        for declared in ("pooler", "mean"):
            shape = dataclasses.replace(backbone.info.shape, pooling=declared)
            options = {"adapter_size": 4} if "adapter_size" in option_names(method) else {}
            options |= {"pals": {"size": 12}, "adapterdrop": {"num_dropped": 1}}.get(method, {})
            auto = complete_options(method, options, shape)
            explicit = complete_options(method, {**options, "pooling": declared}, shape)
            assert auto["pooling"] == declared
            assert auto == explicit
            assert identity_of(method, auto) == identity_of(method, explicit)
            assert identity_of(method, auto)["pooling"] == declared

    def test_readings_that_differ_are_different_configurations(self, backbone: Backbone) -> None:
        found = [
            identity_of("layernorm", complete_options("layernorm", {"pooling": each}, backbone.info.shape))
            for each in ("first", "pooler", "mean")
        ]
        assert len({json.dumps(each) for each in found}) == 3


class TestReading:
    @pytest.mark.parametrize("pooling", ["first", "mean", "pooler"])
    @pytest.mark.parametrize("method", TRAINING_POOLERS)
    def test_a_pooler_that_nobody_reads_is_not_trained_nor_counted(
        self, method: str, pooling: str, backbone: Backbone
    ) -> None:
        config = TrialConfig(task="any", backbone="any", method=method, method_options={"pooling": pooling})
        shape = backbone.info.shape
        model = build_model(backbone.encoder, [config], 2)
        assert (model.encoder.pooler is not None) == (pooling == "pooler")
        counts = count_parameters(model)
        assert counts.trained_without_head == formula(config, shape)
        read = dataclasses.replace(config, method_options={"pooling": "pooler"})
        missing = formula(read, shape) - formula(config, shape)
        assert (missing > 0) == (pooling != "pooler")
        model.train()(laid_out(torch.full((2, 5), 5))).square().sum().backward()
        unread = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert unread == []

    @torch.no_grad()
    def test_a_model_reads_what_auto_resolves_to(self, folder: Path) -> None:
        pieces = laid_out(torch.randint(4, 64, (3, 6), generator=torch.Generator().manual_seed(0)))
        declare(folder, json.dumps({"pooling_mode": "mean"}))
        encoder = load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32).encoder
        read = {}
        for pooling in ("auto", "mean", "pooler", "first"):
            options = {"pooling": pooling}
            config = TrialConfig(task="any", backbone="any", method="feature_based", method_options=options)
            read[pooling] = build_model(encoder, [config], 2).eval()(pieces)
        assert torch.equal(read["auto"], read["mean"])
        assert not torch.allclose(read["auto"], read["pooler"])
        assert not torch.allclose(read["auto"], read["first"])


@pytest.mark.parametrize(("method", "was_read"), [("adapter", "pooler"), ("feature_based", "mean")])
def test_an_adapter_saved_before_every_method_said_what_it_reads_is_read_as_it_was(
    method: str,
    was_read: str,
    folder: Path,
    task_folder: Callable[..., Path],
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    """A backbone that declares something else than what format 1 took for granted."""
    declare(folder, json.dumps({"pooling_mode": {"pooler": "mean", "mean": "cls"}[was_read]}))
    size = {"adapter_size": 4} if method == "adapter" else {}
    config = TrialConfig(
        task=str(task_folder()),
        backbone=str(folder),
        method=method,
        method_options={**size, "pooling": was_read},
        num_epochs=1,
        max_length=16,
        precision="fp32",
    )
    outcome = Engine(device="cpu").run(config, save_to=tmp_path / "saved")
    assert outcome.error is None
    texts = ["good w1", "bad w2 w3"]
    expected = trainables.load(tmp_path / "saved").logits(texts)
    about = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert about["format_version"] == 2
    for version, options, is_same in ((1, size, True), (2, size, False), (1, {**size, "pooling": "first"}, False)):
        changed = {**about, "format_version": version}
        changed["trial_config"] = {**about["trial_config"], "method_options": options}
        (tmp_path / "saved" / "adapter_config.json").write_text(json.dumps(changed))
        found = trainables.load(tmp_path / "saved").logits(texts)
        assert (abs(found - expected).max() < 1e-6) == is_same
    (tmp_path / "saved" / "adapter_config.json").write_text(json.dumps({**about, "format_version": 3}))
    with pytest.raises(FaultsError, match="format_version must be 1 or 2, but got 3"):
        trainables.load(tmp_path / "saved")
