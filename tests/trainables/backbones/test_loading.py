"""Backbones: found by name, described before they are loaded, refused with the reason; the packaged MiniLM is real."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.pieces import laid_out
from trainables import metrics
from trainables.backbones import checkpoint_names
from trainables.backbones.loading import Backbone, describe_backbone, load_backbone
from trainables.backbones.refusals import no_weights
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.faults import FaultsError, UnavailableError
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

CPU = torch.device("cpu")


def load(folder: Path | str) -> Backbone:
    return load_backbone(str(folder), device=CPU, compute_dtype=torch.float32)


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT that may be damaged."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def rewrite(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> list[Path]:
    """Split the weights of a folder into two files and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {f"model-{part + 1:05}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return [folder / file for file in parts]


class TestLoad:
    def test_a_folder_gives_a_frozen_encoder_and_its_tokenizer(self, backbone: Backbone, tiny_bert: Path) -> None:
        assert backbone.info == describe_backbone(str(tiny_bert))
        assert not any(parameter.requires_grad for parameter in backbone.encoder.parameters())
        assert backbone.tokenizer("good w1 abc")["input_ids"] == [2, 4, 7, 26, 35, 36, 3]

    @pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "electra", "electra-small", "distilbert"])
    def test_what_is_described_is_what_is_loaded(self, family: str, checkpoint: Callable[[str], Path]) -> None:
        described, loaded = describe_backbone(str(checkpoint(family))), load(checkpoint(family))
        assert loaded.info == described
        assert loaded.encoder.shape == described.shape
        assert (loaded.encoder.pooler is not None) == described.shape.has_pooler

    def test_products_are_in_the_dtype_asked_for(self, tiny_bert: Path) -> None:
        encoder = load_backbone(str(tiny_bert), device=CPU, compute_dtype=torch.bfloat16).encoder
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}

    def test_shards_are_read_through_their_index(self, folder: Path, backbone: Backbone) -> None:
        shard(folder)
        expected = dict(backbone.encoder.named_parameters())
        sharded = load(folder)
        assert sharded.info.shape == backbone.info.shape
        assert all(torch.equal(parameter, expected[name]) for name, parameter in sharded.encoder.named_parameters())

    def test_a_missing_shard_is_named(self, folder: Path) -> None:
        shard(folder)[1].unlink()
        with pytest.raises(UnavailableError, match="lacks model-00002-of-00002"):
            load(folder)

    def test_a_missing_pooler_is_no_fault_and_known_beforehand(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        rewrite(folder, {name: tensor for name, tensor in tensors.items() if "pooler" not in name})
        info = describe_backbone(str(folder))
        assert not info.shape.has_pooler
        assert info.shape.pooler_params == 0
        loaded = load(folder)
        assert loaded.encoder.pooler is None
        assert loaded.info.shape == info.shape

    def test_a_missing_tensor_is_a_fault_that_names_it(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors["encoder.layer.1.output.dense.bias"]
        rewrite(folder, tensors)
        with pytest.raises(FaultsError, match=r"lacks 1: encoder\.layer\.1\.output\.dense\.bias"):
            load(folder)

    def test_damaged_weights_are_a_fault(self, folder: Path) -> None:
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FaultsError, match="weights cannot be read"):
            load(folder)

    @pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {"a": 5}}', '{"weight_map": {"a": null}}'])
    def test_an_index_that_is_none_is_a_fault(self, content: str, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(content, encoding="utf-8")
        with pytest.raises(FaultsError, match="must be an index of tensors"):
            load(folder)

    def test_an_index_beside_a_single_file_is_of_other_weights_as_it_is_to_transformers(
        self, folder: Path, backbone: Backbone
    ) -> None:
        whole = (folder / "model.safetensors").read_bytes()
        rewrite(folder, {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()})
        shard(folder)
        (folder / "model.safetensors").write_bytes(whole)
        assert describe_backbone(str(folder)).fingerprint == backbone.info.fingerprint
        expected = dict(backbone.encoder.named_parameters())
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load(folder).encoder.named_parameters())

    def test_weights_that_are_no_finite_numbers_are_a_fault(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.layer.1.output.dense.bias"][0] = float("nan")
        rewrite(folder, tensors)
        with pytest.raises(FaultsError, match=r"must be finite .* layers\.1\.feedforward_output\.dense\.bias"):
            load(folder)

    def test_weights_of_another_size_than_configured_are_a_fault(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 65}), encoding="utf-8")
        with pytest.raises(FaultsError, match=r"embeddings\.word\.weight is \(64, 16\) instead of \(65, 16\)"):
            load(folder)


class TestDescribe:
    """What is wrong with weights is seen before anything starts, in what describes them."""

    @pytest.mark.parametrize(
        ("name", "tensor", "fault"),
        [
            ("encoder.layer.1.output.dense.bias", None, r"lacks 1: encoder\.layer\.1\.output\.dense\.bias"),
            ("pooler.dense.weight", torch.zeros(8, 16), r"pooler\.weight is \(8, 16\) instead of \(16, 16\)"),
            ("encoder.layer.0.attention.self.key.weight", torch.zeros(16, 8), r"key\.weight is \(16, 8\).*be joined"),
            ("encoder.layer.0.attention.self.key.bias", torch.zeros(()), r"key\.bias is \(\).*cannot be joined"),
            ("embeddings.word_embeddings.weight", torch.zeros(64, 16, dtype=torch.int8), r"1 tensors are quantised"),
            ("pooler.dense.weight", torch.zeros(16, 16).to(torch.float8_e4m3fn), r"dense\.weight \(torch\.float8"),
        ],
    )
    def test_weights_that_do_not_fit_are_refused(
        self, name: str, tensor: Tensor | None, fault: str, folder: Path
    ) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        rewrite(folder, tensors if tensor is None else {**tensors, name: tensor})
        with pytest.raises(FaultsError, match=fault):
            describe_backbone(str(folder))

    def test_faults_of_weights_and_of_the_tokenizer_are_listed_together(self, folder: Path) -> None:
        rewrite(folder, {})
        (folder / "tokenizer.json").unlink()
        with pytest.raises(FaultsError) as refusal:
            describe_backbone(str(folder))
        assert [fault.partition(": ")[2][:20] for fault in refusal.value.faults] == [
            "the checkpoint must ",
            "its tokenizer must h",
        ]

    def test_tensors_that_are_not_read_may_be_anything(self, folder: Path, backbone: Backbone) -> None:
        tensors = load_file(folder / "model.safetensors")
        codes = torch.zeros(3, dtype=torch.int64)
        rewrite(folder, {**tensors, "head.weight": codes, "teacher.pooler.dense.weight": torch.zeros(3)})
        assert describe_backbone(str(folder)).shape == backbone.info.shape

    @pytest.mark.parametrize("prefix", ["", "teacher."])
    def test_half_a_pooler_or_another_model_s_is_none(self, prefix: str, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
        rewrite(folder, {**kept, f"{prefix}pooler.dense.weight": tensors["pooler.dense.weight"]})
        assert not describe_backbone(str(folder)).shape.has_pooler
        assert load(folder).encoder.pooler is None

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
    def test_pointers_of_git_lfs_are_told_from_files(self, name: str, folder: Path) -> None:
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", encoding="utf-8")
        with pytest.raises(FaultsError, match=rf"pointers of Git LFS: {name}\. Run `git lfs pull`"):
            describe_backbone(str(folder))

    def test_pickled_weights_are_refused(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(FaultsError, match=r"holds pytorch_model\.bin, which may run code when read"):
            describe_backbone(str(folder))

    def test_the_command_that_is_named_for_pickled_weights_makes_a_backbone_of_them(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(FaultsError) as refusal:
            describe_backbone(str(folder))
        (command,) = re.findall(r'python -c "(.*)"', str(refusal.value))
        exec(command, {})
        load(folder)
        converted = load_file(folder / "model.safetensors")
        assert converted.keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in converted.items())

    def test_weights_that_only_the_hub_has_as_a_pickle_are_converted_by_their_id(self, folder: Path) -> None:
        assert "from_pretrained('somebody/encoder').save_pretrained('encoder-safetensors')" in no_weights(
            "somebody/encoder@main", folder
        )

    def test_a_folder_without_weights_is_described_only_where_they_are_not_needed(self, folder: Path) -> None:
        shape = describe_backbone(str(folder)).shape
        (folder / "model.safetensors").unlink()
        info = describe_backbone(str(folder), weights=False)
        assert (info.shape, info.fingerprint) == (shape, None)
        with pytest.raises(UnavailableError, match="holds none"):
            describe_backbone(str(folder))

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (None, "must hold a config.json"),
            ("{", "Expecting property name"),
            ("[]", "holds a list"),
            ('{"model_type": "t5"}', "'t5' is an encoder with a decoder"),
            ('{"model_type": "bert"}', "must hold 'vocab_size'"),
        ],
    )
    def test_a_faulty_configuration_is_refused(self, folder: Path, content: str | None, fault: str) -> None:
        (folder / "config.json").unlink()
        if content is not None:
            (folder / "config.json").write_text(content, encoding="utf-8")
        with pytest.raises(FaultsError, match=fault):
            describe_backbone(str(folder))

    @pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c", "two words"])
    def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(self, name: str) -> None:
        with pytest.raises(FaultsError, match="minilm") as refusal:
            describe_backbone(name)
        assert not isinstance(refusal.value, UnavailableError)

    def test_a_published_checkpoint_out_of_reach_is_described_by_its_sizes(self, hub_cache: object) -> None:
        with pytest.raises(UnavailableError, match="bert-base-uncased"):
            describe_backbone("bert-base-uncased")
        info = describe_backbone("bert-base-uncased", weights=False)
        assert (info.folder, info.fingerprint) == (None, None)
        assert (info.shape.num_layers, info.shape.hidden_size, info.shape.max_length) == (12, 768, 512)
        with pytest.raises(UnavailableError, match="someone/unheard-of"):
            describe_backbone("someone/unheard-of", weights=False)

    def test_the_fingerprint_is_of_the_content(self, folder: Path, tiny_bert: Path) -> None:
        first = describe_backbone(str(tiny_bert)).fingerprint
        assert describe_backbone(str(folder)).fingerprint == first

        (folder / "README.md").write_text("says nothing about what is computed", encoding="utf-8")
        assert describe_backbone(str(folder)).fingerprint == first

        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
        (folder / "tokenizer.json").write_text(tokenizer.replace('"w1"', '"v1"'), encoding="utf-8")
        second = describe_backbone(str(folder)).fingerprint
        assert second != first

        tensors = load_file(folder / "model.safetensors")
        tensors["pooler.dense.bias"][0] += 1
        rewrite(folder, tensors)
        assert describe_backbone(str(folder)).fingerprint not in (first, second)


@pytest.fixture(scope="module")
def minilm() -> Backbone:
    return load("minilm")


class TestPackagedMiniLM:
    """The encoder that the extra `offline` installs: 6 layers, width 384."""

    SENTENCES = ("A short one.", "The second sentence is considerably longer, so that the first is padded.")

    @torch.no_grad()
    def test_it_computes_what_transformers_own_model_computes(self, minilm: Backbone) -> None:
        from transformers import AutoModel

        assert minilm.info.folder is not None
        reference = AutoModel.from_pretrained(minilm.info.folder, local_files_only=True).eval()
        rows = minilm.tokenizer(list(self.SENTENCES), padding=True, return_tensors="pt")
        assert (rows["attention_mask"] == 0).any()
        expected = reference(**rows).pooler_output
        view = minilm.encoder.view().eval()
        view.pooling = "pooler"
        hidden = view(laid_out(rows["input_ids"], rows["token_type_ids"], rows["attention_mask"].sum(dim=1)))
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)
        count = sum(parameter.numel() for parameter in minilm.encoder.parameters())
        assert count == sum(parameter.numel() for parameter in reference.parameters())

    def test_adapters_leave_all_its_tensors_but_layernorms_as_they_are_on_disk(self, minilm: Backbone) -> None:
        rows = minilm.tokenizer(list(self.SENTENCES * 4), return_token_type_ids=True)
        lengths = [len(row) for row in rows["input_ids"]]
        split = TokenizedSplit(
            offsets=np.cumsum([0, *lengths]),
            input_ids=np.concatenate(rows["input_ids"]).astype(np.int32),
            token_type_ids=np.concatenate(rows["token_type_ids"]).astype(np.int8),
            labels=np.arange(8) % 2,
        )
        config = TrialConfig(task="two sentences", backbone="minilm", method="adapter", num_epochs=3, batch_size=8)
        pack = Pack(minilm.encoder, {"train": split, "validation": split}, 2)
        trial = RunningTrial(Job(config=config, done=lambda outcome: None), len(split))
        pack.join([trial])
        for _ in range(3):
            pack.step()
        (report,) = pack.end_epochs([trial], metrics.get("accuracy"))
        assert report.step == 3
        model = pack.show(trial)

        assert minilm.info.folder is not None
        on_disk = load_file(minilm.info.folder / "model.safetensors")
        compared = set()
        for ours, theirs in checkpoint_names(minilm.info.shape).items():
            expected = torch.cat([on_disk[name] for name in theirs])
            assert torch.equal(minilm.encoder.get_parameter(ours), expected), f"shared {ours}"
            compared.update(theirs)
            if ours.startswith("pooler."):  # the checkpoint declares that it is read by the mean
                assert model.encoder.pooler is None
                continue
            trained = model.encoder.get_parameter(ours).detach().reshape(expected.shape)
            assert torch.equal(trained, expected) == ("layernorm" not in ours), ours
        assert compared == {name for name in on_disk if name != "embeddings.position_ids"}
