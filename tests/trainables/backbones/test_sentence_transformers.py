"""Folders of sentence-transformers: the encoder where it lies, read as declared, with the prompt of its texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from trainables.backbones.loading import Backbone, describe_backbone, load_backbone
from trainables.data.tokenized import encode, tokenize
from trainables.faults import FaultsError
from trainables.task import Task, TaskInfo

TRANSFORMER = "sentence_transformers.models.Transformer"
POOLING = "sentence_transformers.models.Pooling"
NORMALIZE = "sentence_transformers.models.Normalize"


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def modules(*parts: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"idx": index, "name": str(index), "path": path, "type": kind} for index, (kind, path) in enumerate(parts)]


@pytest.fixture
def root(tiny_bert: Path, tmp_path: Path) -> Path:
    """The tiny BERT as older versions save it: the encoder in a folder of its own, read by the mean of its words."""
    root = tmp_path / "sentences"
    shutil.copytree(tiny_bert, root / "0_Transformer")
    write(root / "modules.json", modules((TRANSFORMER, "0_Transformer"), (POOLING, "1_Pooling"), (NORMALIZE, "2")))
    write(root / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    return root


def load(folder: Path) -> Backbone:
    return load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32)


def test_the_encoder_is_found_in_its_folder(root: Path, tiny_bert: Path) -> None:
    plain, found = load(tiny_bert), load(root)
    assert found.info.folder == root / "0_Transformer"
    assert found.info.fingerprint == plain.info.fingerprint
    assert (plain.info.shape.pooling, found.info.shape.pooling) == ("pooler", "mean")
    states = dict(found.encoder.named_parameters())
    assert all(torch.equal(parameter, states[name]) for name, parameter in plain.encoder.named_parameters())


def test_it_is_found_without_a_list_of_modules_too(root: Path) -> None:
    (root / "modules.json").unlink()
    assert describe_backbone(str(root)).shape.pooling == "mean"


def test_newer_folders_have_the_encoder_at_their_root(root: Path) -> None:
    for path in (root / "0_Transformer").iterdir():
        shutil.move(path, root / path.name)
    (root / "0_Transformer").rmdir()
    write(root / "modules.json", modules((TRANSFORMER, ""), (POOLING, "reading")))
    (root / "1_Pooling").rename(root / "reading")
    info = describe_backbone(str(root))
    assert (info.folder, info.shape.pooling) == (root, "mean")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("modules.json", modules(("sentence_transformers.models.BoW", "")), "must list a Transformer, but lists BoW"),
        ("modules.json", modules((TRANSFORMER, "../elsewhere")), "must name folders below its own"),
        ("modules.json", [{"type": TRANSFORMER}], "lacks or misstates 'path'"),
        ("modules.json", {}, "must hold a JSON array"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "'query' is none of: none"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query", "prompts": {"passage": "passage: "}},
            "'query' is none of: passage",
        ),
    ],
)
def test_a_faulty_declaration_is_refused(name: str, content: Any, fault: str, root: Path) -> None:
    write(root / name, content)
    with pytest.raises(FaultsError, match=fault):
        describe_backbone(str(root))


PROMPTS = {"query": "w1 ", "passage": "w2 "}


class TestPrompts:
    @pytest.fixture
    def prompted(self, root: Path) -> Backbone:
        write(root / "config_sentence_transformers.json", {"prompts": PROMPTS, "default_prompt_name": "query"})
        return load(root)

    def test_only_a_default_is_put_before_texts(self, root: Path, prompted: Backbone) -> None:
        prompt, fingerprint = prompted.info.prompt, prompted.info.fingerprint
        write(root / "config_sentence_transformers.json", {"prompts": PROMPTS, "default_prompt_name": None})
        plain = describe_backbone(str(root))
        assert (prompt, plain.prompt) == ("w1 ", "")
        assert fingerprint != plain.fingerprint

    def test_each_text_of_a_row_begins_with_it(self, prompted: Backbone, tmp_path: Path) -> None:
        table = pa.table({"text_a": ["good"], "text_b": ["bad w3"], "label": [0]})
        info = TaskInfo(
            name="any", kind="classification", pair=True, num_labels=2, label_names=(), metric="accuracy", source="any"
        )
        task = Task(info=info, splits={"train": table}, fingerprint="any")
        prompt, tokenizer = prompted.info.prompt, prompted.tokenizer
        assert tokenizer is not None
        expected = tokenizer("w1 good", "w1 bad w3")["input_ids"]
        read = tokenize(task, tokenizer, str(prompted.info.fingerprint), 16, tmp_path / "cache", prompt=prompt)
        assert read["train"].input_ids.tolist() == expected
        assert encode(table, tokenizer, 16, prompt=prompt).input_ids.tolist() == expected


def cased(folder: Path) -> None:
    """Let the tokenizer keep case."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def test_texts_are_put_in_lower_case_where_the_folder_says_so(root: Path) -> None:
    cased(root / "0_Transformer")
    before = load(root)
    write(root / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": True})
    after = load(root)
    small, large = before.tokenizer("good w1")["input_ids"], before.tokenizer("GOOD W1")["input_ids"]
    assert small != large
    assert after.tokenizer("GOOD W1")["input_ids"] == after.tokenizer("good w1")["input_ids"] == small
    assert before.info.fingerprint != after.info.fingerprint


def test_lower_case_is_said_twice_where_the_tokenizer_has_it_anyway(root: Path) -> None:
    before = describe_backbone(str(root))
    write(root / "0_Transformer" / "sentence_bert_config.json", {"do_lower_case": True})
    assert describe_backbone(str(root)) == before


def test_a_prompt_that_pooling_leaves_out_is_refused(root: Path) -> None:
    pooling = {"pooling_mode": "mean", "include_prompt": False}
    write(root / "1_Pooling" / "config.json", pooling)
    assert describe_backbone(str(root)).shape.pooling == "mean"
    prompts = {"prompts": {"query": "good "}, "default_prompt_name": "query"}
    write(root / "config_sentence_transformers.json", prompts)
    with pytest.raises(FaultsError, match="include_prompt must be true or left out beside a default prompt"):
        describe_backbone(str(root))
