"""Folders of huggingface/peft, which `peft.PeftModel.from_pretrained` opens over a model of transformers.

Where a class of transformers reads the encoder as the trained head does, the folder is one for that class, and the head
is a module that peft saves with it. Elsewhere, and for the tuners of the method `peft`, it is one for `AutoModel`; the
head is in `head.safetensors`, as `weight` (C, D) and `bias` (C,), and the card has the lines that apply it.
`adaptune.json` says of the task what peft does not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.backbones import prefix_of
from trainables.inference.equal_answers import reads_types
from trainables.inference.foreign_folder import notes_of
from trainables.inference.formats import Answer
from trainables.inference.model_card import READ, READS, write_card
from trainables.inference.peft_folder import PREFIX
from trainables.inference.predictor import Predictor
from trainables.inference.saved_names import CARD, OWN_HEAD, OWN_NOTES, WEIGHTS
from trainables.inference.stock_model import (
    StockHead,
    backbone_folder,
    backbone_reference,
    library_config,
    linear_head,
    low_rank_changes,
    stock_head,
)
from trainables.methods import parse_options
from trainables.methods.peft import tuned_model

NEEDS = (("peft",), "peft")


def write(predictor: Predictor, folder: Path) -> None:
    method = predictor.config.method
    if method not in ("lora", "peft"):
        rule = "peft has equals of `lora` and of its own tuners alone"
        raise ValueError(f"{rule}; the formats adapters, onnx and transformers have others")
    if predictor.task.pair and reads_types(predictor) and _virtual_tokens(predictor):
        raise ValueError("peft leaves out which text of a pair a word piece is of, where there are virtual tokens")
    head = _class_of(predictor)
    config, tensors = _of_lora(predictor, head) if method == "lora" else _of_tuner(predictor)
    config.base_model_name_or_path, config.revision = backbone_reference(predictor)
    config.inference_mode = True
    config.save_pretrained(folder)
    if head is None:
        weight, bias = linear_head(predictor.model)
        save_file({"weight": weight, "bias": bias}, folder / OWN_HEAD)
    else:
        tensors |= {f"{PREFIX}{name}": tensor for name, tensor in head.tensors.items()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / OWN_NOTES).write_text(json.dumps(notes_of(predictor), indent=2) + "\n", encoding="utf-8")
    write_card(folder / CARD, predictor, library="peft", usage=_usage(predictor, head), notes=_notes(predictor, head))


def open_(predictor: Predictor, folder: Path) -> Answer:
    from peft import PeftModel

    head, place = _class_of(predictor), backbone_folder(predictor)
    if head is not None:
        kind = getattr(transformers, head.class_name)
        base = kind.from_pretrained(place, config=library_config(predictor), local_files_only=True)
        whole = PeftModel.from_pretrained(base, folder).eval()

        def answer(inputs: Mapping[str, Tensor]) -> Tensor:
            outputs = whole(**inputs)
            if predictor.task.kind != "extractive_qa":
                return outputs.logits
            return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)

        return answer
    encoder = PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(place, local_files_only=True), folder)
    encoder.eval()
    layer = load_file(folder / OWN_HEAD)
    code = compile(_reading(predictor), CARD, "exec")

    def read(inputs: Mapping[str, Tensor]) -> Tensor:
        names = {"model": encoder, "outputs": encoder(**inputs), "inputs": inputs, "head": layer}
        exec(code, names)  # the very lines of the card
        return names["logits"]

    return read


def _class_of(predictor: Predictor) -> StockHead | None:
    """The class of transformers that the folder is for; None where that is `AutoModel`, and the head is beside it."""
    if predictor.config.method != "lora":  # a tuner's configuration speaks of the encoder that it was trained on
        return None
    try:
        return stock_head(predictor)
    except ValueError:
        return None


def _of_lora(predictor: Predictor, head: StockHead | None) -> tuple[Any, dict[str, Tensor]]:
    """peft's configuration of low-rank changes, and their tensors by its names."""
    from peft import LoraConfig

    view = predictor.model.encoder
    changes = low_rank_changes(view)
    ranks = {name: len(change.down) for name, change in changes.items()}
    rank, scale = min(ranks.values()), next(iter(changes.values())).scale
    larger = {name: own for name, own in ranks.items() if own != rank}  # of joined projections
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION" if head is None else head.peft_task,
        r=rank,
        lora_alpha=_whole(scale * rank),
        rank_pattern=larger,
        alpha_pattern={name: _whole(scale * own) for name, own in larger.items()},
        lora_dropout=parse_options("lora", predictor.config.method_options).lora_dropout,
        target_modules=sorted(changes),
        modules_to_save=None if head is None else [head.module],
        bias="none",
    )
    before = PREFIX if head is None else f"{PREFIX}{prefix_of(view.shape)}"
    tensors = {}
    for name, change in changes.items():
        tensors[f"{before}{name}.lora_A.weight"] = change.down
        tensors[f"{before}{name}.lora_B.weight"] = change.up
    return config, tensors


def _whole(number: float) -> Any:
    """The same number, an integer where it is whole: peft declares it so."""
    return int(number) if number == int(number) else number


def _of_tuner(predictor: Predictor) -> tuple[Any, dict[str, Tensor]]:
    """The configuration of a tuner as it was trained, and its tensors as the library names them."""
    from peft import get_peft_model_state_dict

    model = tuned_model(predictor.model.encoder)
    config = copy.deepcopy(model.active_peft_config)
    return config, get_peft_model_state_dict(model, save_embedding_layers=False)


def _virtual_tokens(predictor: Predictor) -> int:
    """How many virtual tokens the tuner has; 0 where it has none."""
    if predictor.config.method != "peft":
        return 0
    config = tuned_model(predictor.model.encoder).active_peft_config
    return int(config.num_virtual_tokens) if config.is_prompt_learning else 0


def _reading(predictor: Predictor) -> str:
    """The lines that make logits of an encoder's outputs."""
    hidden, read = "outputs.last_hidden_state", READS[predictor.model.encoder.pooling]
    if number := _virtual_tokens(predictor):
        hidden += f"[:, -inputs['input_ids'].shape[1]:]  # without {number} virtual tokens, where they are among them"
        read = read.replace("outputs.pooler_output", "model.get_base_model().pooler(hidden)")
    return f"""hidden = {hidden}
read = {read}
logits = read @ head["weight"].T + head["bias"]
"""


def _usage(predictor: Predictor, head: StockHead | None) -> str:
    base, revision = backbone_reference(predictor)
    at = f", revision={revision!r}" if revision else ""
    pair = ', ["and its pair"]' if predictor.task.pair else ""
    pair += ", return_token_type_ids=True" if pair and reads_types(predictor) else ""
    read = f'["a text"]{pair}, truncation=True, max_length={predictor.config.max_length}, padding=True'
    name = "AutoModel" if head is None else head.class_name
    labels = f", num_labels={predictor.task.num_labels}" if head is not None and head.peft_task == "SEQ_CLS" else ""
    loads = "from safetensors.torch import load_file\n" if head is None else ""
    lines = f"""from peft import PeftModel
{loads}from transformers import AutoTokenizer, {name}

base = {base!r}
tokenizer = AutoTokenizer.from_pretrained(base{at})
model = PeftModel.from_pretrained({name}.from_pretrained(base{at}{labels}), "path/to/this/folder").eval()
inputs = tokenizer({read}, return_tensors="pt")
outputs = model(**inputs)
"""
    if head is None:
        lines += f'head = load_file("path/to/this/folder/{OWN_HEAD}")\n' + _reading(predictor)
    return lines


def _notes(predictor: Predictor, head: StockHead | None) -> str:
    if head is not None:
        return f"The head is `{head.module}` of `{head.class_name}`, saved with the changes.\n\n"
    reads = READ[predictor.model.encoder.pooling]
    return f"The head reads {reads}. It is in `{OWN_HEAD}`, and the last lines apply it.\n\n"
