"""ERNIE (Sun et al. 2019, 2.0 and 3.0): BERT, in some checkpoints with an embedding of the pre-training task.

transformers takes every text for one of task 0 where nobody says otherwise, and so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainables.backbones import bert
from trainables.nn.encoder_shape import EncoderShape

MODEL_TYPES = ("ernie",)
PREFIX = "ernie."
TENSORS: Mapping[str, str | tuple[str, ...]] = {
    **bert.TENSORS,
    "embeddings.task_type": "embeddings.task_type_embeddings",
}


def shape(config: Mapping[str, Any]) -> EncoderShape:
    tasks = config.get("task_type_vocab_size", 3) if config.get("use_task_id") else 0
    return replace(bert.shape(config), task_type_vocab_size=tasks)


def library_config(shape: EncoderShape) -> dict[str, Any]:
    tasks = shape.task_type_vocab_size
    return {"use_task_id": tasks > 0, "task_type_vocab_size": tasks}
