"""A trained model in the terms of transformers: its tensors by a checkpoint's names, and the class that computes it.

Suffixes: I and O the widths of a projection, R rank, C outputs, D hidden width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.backbones import checkpoint_names, prefix_of
from trainables.backbones.loading import meta_encoder
from trainables.inference.predictor import Predictor
from trainables.methods.lora import Changed, LowRank
from trainables.nn.encoder import Encoder
from trainables.packaged import PACKAGED
from trainables.training.model import AdaptedModel, frozen_buffers

# By how its class for sequences reads what a head is given: as our pooler does, in the encoder itself ...
POOLED = ("albert", "bert", "ernie", "nomic_bert")
# ... or with the pooler as a part of the classifier.
DENSE_IN_HEAD = ("camembert", "data2vec-text", "mpnet", "roberta", "xlm-roberta")
_PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True, kw_only=True)
class StockHead:
    """The class of transformers that computes an encoder with a trained head, and the tensors of that head in it."""

    class_name: str
    peft_task: str | None  # what peft calls such a model; None: it adds nothing to the class
    module: str  # the head's name in the class
    tensors: Mapping[str, Tensor]  # by their full names in the class
    has_pooler: bool  # whether the encoder in it has one


@dataclass(frozen=True, kw_only=True)
class Change:
    """A low-rank change of one projection: what it adds is scale * up @ down @ x."""

    down: Tensor  # (R, I)
    up: Tensor  # (O, R)
    scale: float


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bars, and its warnings that a head is not the checkpoint's."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def class_name(predictor: Predictor) -> str:
    """The class of transformers for a task of this kind."""
    is_span = predictor.task.kind == "extractive_qa"
    return "AutoModelForQuestionAnswering" if is_span else "AutoModelForSequenceClassification"


def stock_head(predictor: Predictor) -> StockHead:
    """The class that reads the encoder as the trained head does.

    Raises `ValueError` with the reason where transformers has none.
    """
    model, name = predictor.model, class_name(predictor)
    pooling, model_type = model.encoder.pooling, model.encoder.shape.model_type
    weight, bias = linear_head(model)
    if predictor.task.kind == "extractive_qa":
        tensors = {"qa_outputs.weight": weight, "qa_outputs.bias": bias}
        # peft's own QUESTION_ANS leaves out the types of word pieces.
        return StockHead(class_name=name, peft_task=None, module="qa_outputs", tensors=tensors, has_pooler=False)
    if pooling != "pooler" or model_type not in (*POOLED, *DENSE_IN_HEAD):
        reads = {"first": "the first token itself", "mean": "the mean of all word pieces", "pooler": "the pooler"}[
            pooling
        ]
        can = (
            "; train with the option pooling: pooler" if model.encoder.shape.has_pooler and pooling != "pooler" else ""
        )
        rule = f"{name} of the family {model_type} gives its head something else"
        raise ValueError(f"{rule} than this head reads, which is {reads}{can}")
    if model_type in POOLED:
        tensors = {"classifier.weight": weight, "classifier.bias": bias}
    else:
        pooler = model.encoder.pooler
        assert pooler is not None  # what the head reads
        assert pooler.bias is not None
        tensors = {
            "classifier.dense.weight": _plain(pooler.weight),
            "classifier.dense.bias": _plain(pooler.bias).reshape(-1),
            "classifier.out_proj.weight": weight,
            "classifier.out_proj.bias": bias,
        }
    has_pooler = model_type in POOLED
    return StockHead(class_name=name, peft_task="SEQ_CLS", module="classifier", tensors=tensors, has_pooler=has_pooler)


def linear_head(model: AdaptedModel) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) of the head. Raises `ValueError` where it has a hidden layer."""
    if model.head.hidden_size:
        raise ValueError(f"its head has a hidden layer of {model.head.hidden_size}, which no class of theirs has")
    return _plain(model.head.weight[0].T), _plain(model.head.bias[0])


def low_rank_changes(view: Encoder) -> dict[str, Change]:
    """What `lora` has trained of a view, by the names of modules in the library's encoder.

    Where the library joins projections that are several here, their changes become one with as many times the rank;
    where it has several in place of one here, each gets its part. Raises `ValueError` where layers that share weights
    have changes of their own.
    """
    names = checkpoint_names(view.shape)
    found: dict[str, Change] = {}
    for name, module in view.named_modules():
        if not isinstance(module, Changed):
            continue
        sources = [each.removesuffix(".weight") for each in names.get(f"{name}.weight", ())]
        if not sources or any(source in found for source in sources):
            raise ValueError("its layers share weights, but have changes of their own")
        parts = {
            int(part): Change(down=_plain(low.lora_a[0].T), up=_plain(low.lora_b[0].T), scale=low.scale)
            for part, low in module.changes.items()
            if isinstance(low, LowRank)
        }
        if len(sources) == module.num_parts:
            found |= {sources[part]: change for part, change in parts.items()}
        elif module.num_parts == 1:
            ups = parts[0].up.chunk(len(sources))
            found |= {each: replace(parts[0], up=_plain(up)) for each, up in zip(sources, ups, strict=True)}
        else:
            found[sources[0]] = _joined(parts, module.num_parts)
    return found


def _joined(parts: Mapping[int, Change], num_parts: int) -> Change:
    """One change of a joined projection: ranks side by side, each giving to its own part."""
    width, rank = next(iter(parts.values())).up.shape
    up = torch.zeros(num_parts * width, rank * len(parts))
    for place, (part, change) in enumerate(parts.items()):
        up[part * width : (part + 1) * width, place * rank : (place + 1) * rank] = change.up
    return Change(down=torch.cat([each.down for each in parts.values()]), up=up, scale=next(iter(parts.values())).scale)


def checkpoint_tensors(model: AdaptedModel) -> dict[str, Tensor]:
    """The trained encoder's tensors by a checkpoint's names, prefix left out, low-rank changes merged; float32.

    Raises `ValueError` with the reason where it has what a checkpoint of this backbone does not hold.
    """
    view = model.encoder
    names = checkpoint_names(view.shape)
    sizes = {name: parameter.shape for name, parameter in meta_encoder(view.shape).named_parameters()}
    own = {name for name, _ in view.named_parameters() if ".changes." not in name}
    own |= {name.removeprefix("encoder.") for name in frozen_buffers(model)}
    if view.body is not None or (extra := sorted(own - names.keys())):
        what = "modules of its own" if view.body is not None else ", ".join(extra[:3])
        raise ValueError(f"it has {what}, which no checkpoint of the family {view.shape.model_type} holds")
    tensors: dict[str, Tensor] = {}
    for name, parameter in view.named_parameters():
        if ".changes." not in name:
            parts = _plain(parameter).reshape(sizes[name]).chunk(len(names[name]))
            tensors |= dict(zip(names[name], parts, strict=True))
    for name, change in low_rank_changes(view).items():
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"] + change.scale * change.up @ change.down
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def with_prefix(predictor: Predictor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's tensors by their names in a class with a head."""
    prefix = prefix_of(predictor.model.encoder.shape)
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def library_config(predictor: Predictor) -> Any:
    """The backbone's configuration in transformers, with the task's labels."""
    from transformers import AutoConfig

    task = predictor.task
    config = AutoConfig.from_pretrained(backbone_folder(predictor), local_files_only=True)
    config.num_labels = task.num_labels
    if task.label_names:
        config.id2label = dict(enumerate(task.label_names))
        config.label2id = {name: number for number, name in enumerate(task.label_names)}
    if task.kind in _PROBLEMS:
        config.problem_type = _PROBLEMS[task.kind]
    return config


def backbone_folder(predictor: Predictor) -> Path:
    """Where the backbone's checkpoint lies."""
    assert predictor.backbone.info.folder is not None  # its weights were loaded
    return predictor.backbone.info.folder


def backbone_reference(predictor: Predictor) -> tuple[str, str | None]:
    """What transformers calls the backbone: a hub id and its revision, or a folder of this machine and None."""
    name = predictor.backbone.info.name
    if name in PACKAGED or Path(name).expanduser().exists():
        return str(backbone_folder(predictor)), None
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
