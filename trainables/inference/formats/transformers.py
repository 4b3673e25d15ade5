"""A plain checkpoint of transformers, with the head: LoRA merged, and whatever else a method trained of the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from torch import Tensor

from trainables.inference.equal_answers import reads_types
from trainables.inference.formats import Answer
from trainables.inference.model_card import write_card
from trainables.inference.predictor import Predictor
from trainables.inference.saved_names import CARD
from trainables.inference.stock_model import (
    checkpoint_tensors,
    class_name,
    library_config,
    stock_head,
    with_prefix,
)
from trainables.methods import uses_backbone
from trainables.methods.peft import merged_tensors

NEEDS = (("transformers",), "")


def write(predictor: Predictor, folder: Path) -> None:
    if not uses_backbone(predictor.config.method):
        raise ValueError("it reads no backbone")
    head = stock_head(predictor)
    is_tuned = predictor.config.method == "peft"
    tensors = merged_tensors(predictor.model.encoder) if is_tuned else checkpoint_tensors(predictor.model)
    if not head.has_pooler:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    model = getattr(transformers, head.class_name).from_config(library_config(predictor))
    try:
        model.load_state_dict({**with_prefix(predictor, tensors), **head.tensors})
    except RuntimeError as error:
        raise ValueError(f"{type(model).__name__} of transformers has other tensors: {str(error)[:300]}") from None
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(predictor.backbone.tokenizer)
    assert tokenizer is not None  # the method reads a backbone
    tokenizer.model_max_length = predictor.config.max_length
    tokenizer.save_pretrained(folder)
    write_card(folder / CARD, predictor, library="transformers", usage=_usage(predictor))


def open_(predictor: Predictor, folder: Path) -> Answer:
    kind = getattr(transformers, class_name(predictor))
    model = kind.from_pretrained(folder, local_files_only=True).eval()

    def answer(inputs: Mapping[str, Tensor]) -> Tensor:
        outputs = model(**inputs)
        if predictor.task.kind != "extractive_qa":
            return outputs.logits
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)

    return answer


def _usage(predictor: Predictor) -> str:
    name = class_name(predictor)
    pair = ', ["and its pair"]' if predictor.task.pair else ""
    pair += ", return_token_type_ids=True" if pair and reads_types(predictor) else ""
    return f"""from transformers import AutoTokenizer, {name}

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = {name}.from_pretrained("path/to/this/folder")
outputs = model(**tokenizer(["a text"]{pair}, truncation=True, padding=True, return_tensors="pt"))
"""
