"""A backbone and tasks small enough to plan in milliseconds and to train in a second; a file system that fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSelector, FileSystemHandler, LocalFileSystem, PyFileSystem

WORDS = ["good", "bad", *(f"w{number}" for number in range(8))]
CONFIG = {
    "model_type": "bert",
    "vocab_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}

WriteTask = Callable[..., Path]


def write_backbone(folder: Path, seed: int = 0) -> Path:
    """Writes a random BERT of two layers in Hugging Face's format, tokenizer included."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from trainables.backbones import checkpoint_names, shape_of
    from trainables.backbones.loading import meta_encoder

    shape = shape_of(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: parameter.shape for name, parameter in meta_encoder(shape).named_parameters()}
    tensors = {}
    for ours, theirs in checkpoint_names(shape).items():
        rows = sizes[ours][0] // len(theirs)  # query, key and value are one to us
        for name in theirs:
            tensors[name] = torch.randn(rows, *sizes[ours][1:], generator=generator) * 0.3
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    words = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT: 2 layers, width 8. Not to be changed."""
    return write_backbone(tmp_path_factory.mktemp("backbone") / "small")


@pytest.fixture(scope="session")
def write_task(tmp_path_factory: pytest.TempPathFactory) -> WriteTask:
    """Writes a task folder whose label is whether "good" or "bad" is said; as jsonl, or as csv of the same rows."""
    root = tmp_path_factory.mktemp("tasks")

    def write(name: str = "opinion", *, rows: int = 32, ending: str = "jsonl", under: Path | None = None) -> Path:
        folder = (under or root) / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, count in (("train", rows), ("validation", 16), ("test", 16)):
            texts = [f"w{row % 5} {['bad', 'good'][row % 2]} {split[0]} w{row % 7} n{row}" for row in range(count)]
            if ending == "jsonl":
                lines = [json.dumps({"text_a": text, "label": row % 2}) for row, text in enumerate(texts)]
            else:
                lines = ["label,text_a", *(f"{row % 2},{text}" for row, text in enumerate(texts))]
            (folder / f"{split}.{ending}").write_text("\n".join(lines), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def values(small_backbone: Path, write_task: Callable[..., Path]) -> dict[str, Any]:
    """A sweep of three configurations with two seeds each."""
    return {
        "name": "small",
        "backbone": str(small_backbone),
        "tasks": [str(write_task())],
        "seeds": [0, 1],
        "space": {"num_epochs": 2, "max_length": 16},
        "methods": [{"adapter": {"adapter_size": {"grid": [1, 4]}}}, "layernorm"],
    }


class FailingFileSystem(FileSystemHandler):
    """The local disk, of which the n-th change from now on fails, and all later ones. `after` None: none fails."""

    def __init__(self) -> None:
        self._disk = LocalFileSystem()
        self.after: int | None = None

    def change(self) -> None:
        if self.after is not None:
            if self.after == 0:
                raise OSError("No space left on device")
            self.after -= 1

    def get_type_name(self) -> str:
        return "failing"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        return self._disk.get_file_info(paths)

    def get_file_info_selector(self, selector: FileSelector) -> Any:
        return self._disk.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._disk.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        raise AssertionError("a store deletes no folder")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise AssertionError("a store deletes no folder")

    def delete_root_dir_contents(self) -> None:
        raise AssertionError("a store deletes no folder")

    def delete_file(self, path: str) -> None:
        self.change()
        self._disk.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self.change()
        self._disk.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self.change()
        self._disk.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self._disk.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self._disk.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.change()
        return self._disk.open_output_stream(path)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise AssertionError("a store appends to no file")


@pytest.fixture
def failing() -> tuple[FailingFileSystem, PyFileSystem]:
    handler = FailingFileSystem()
    return handler, PyFileSystem(handler)
