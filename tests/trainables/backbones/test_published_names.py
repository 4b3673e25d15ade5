"""Checkpoints whose tensors transformers' own classes write under other names than their modules have."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pieces import laid_out
from trainables.backbones.loading import load_backbone
from trainables.backbones.published_names import PublishedNames

Checkpoint = Callable[[str], Path]


@pytest.fixture(params=["nomic_bert", "gte"])
def saved(request: pytest.FixtureRequest, checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint as `save_pretrained` writes it."""
    from transformers import AutoConfig, AutoModel

    source = checkpoint(request.param)
    # A model that is read from a checkpoint with the names of modules is written with them again.
    with torch.random.fork_rng():
        model = AutoModel.from_config(AutoConfig.from_pretrained(source, local_files_only=True))
    model.load_state_dict(load_file(source / "model.safetensors"), strict=False)
    model.save_pretrained(tmp_path / "saved")
    for path in source.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "saved")
    return tmp_path / "saved"


def load(folder: Path) -> Any:
    return load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32).encoder.eval()


@torch.no_grad()
def test_what_save_pretrained_writes_is_read(saved: Path) -> None:
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(saved, local_files_only=True).eval()
    held = load_file(saved / "model.safetensors")
    assert not held.keys() & {name for name in reference.state_dict() if "attn" in name}  # under other names
    encoder = load(saved)
    encoder.pooling = "tokens"
    ids = torch.randint(4, encoder.shape.vocab_size, (2, 9), generator=torch.Generator().manual_seed(1))
    expected = reference(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(encoder(laid_out(ids)), expected.flatten(0, 1), rtol=0, atol=1e-5)


def test_joined_rows_are_cut_in_their_order_and_others_are_left() -> None:
    names = PublishedNames(renamed={"old.": "new."}, joined={".both.": (".one.", ".two.")})
    rows = torch.arange(4.0)
    found = names.of_modules({"old.both.bias": rows, "new.head.bias": rows, "x.both.scale": torch.tensor(1.0)})
    assert list(found) == ["new.one.bias", "new.two.bias", "new.head.bias", "x.both.scale"]
    assert found["new.two.bias"].tolist() == [2, 3]
