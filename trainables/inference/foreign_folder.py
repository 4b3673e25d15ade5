"""What adaptune's readers and writers of other libraries' folders share: its notes beside their files, and tensors.

`adaptune.json` says of a task, and of the texts, what the other library has no place for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainables.inference.predictor import Predictor
from trainables.inference.saved_files import shown, task_of
from trainables.inference.saved_names import OWN_NOTES
from trainables.nn.encoder import POOLINGS
from trainables.nn.encoder_shape import EncoderShape


def notes_of(predictor: Predictor) -> dict[str, Any]:
    """What adaptune knows of a model and the other library does not say."""
    return {
        "task": asdict(predictor.task),
        "pooling": predictor.model.encoder.pooling,
        "max_length": predictor.config.max_length,
        "scores": dict(predictor.scores),
        "backbone_fingerprint": predictor.backbone.info.fingerprint,
    }


def notes_faults(notes: Mapping[str, Any]) -> list[str]:
    """Every fault of notes that a stranger may have written."""
    faults = []
    if notes.get("pooling", "first") not in (*POOLINGS, "tokens"):
        faults.append(f"{OWN_NOTES}: pooling must be one of {', '.join(POOLINGS)}, but got {shown(notes['pooling'])}")
    if type(notes.get("max_length", 1)) is not int:
        faults.append(f"{OWN_NOTES}: max_length must be a whole number, but got {shown(notes['max_length'])}")
    scores = notes.get("scores", {})
    if not isinstance(scores, dict) or not all(type(value) in (int, float) for value in scores.values()):
        faults.append(f"{OWN_NOTES}: scores must map names to numbers, but got {shown(scores)}")
    if "task" in notes:
        task_of(notes["task"], faults)
    return faults


def max_length_of(notes: Mapping[str, Any], shape: EncoderShape) -> int:
    """At how many word pieces texts are cut. Raises `ValueError` where the backbone has not so many positions."""
    most = shape.max_length
    max_length: int = notes.get("max_length", min(512, most))
    if not 1 <= max_length <= most:
        rule = f"max_length must be in [1, {most}], the backbone's positions"
        raise ValueError(f"{OWN_NOTES}: {rule}, but got {max_length}")
    return max_length


def sound_tensors(
    folder: Path, files: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of a folder's files, those that are there, once they are known to fit a model's.

    Args:
        folder: where they lie.
        files: their names, each with what is put before the names of its tensors.
        shapes: of their tensors, as their headers say.
        own: the model's, by the same names.

    Raises `ValueError` where one is of another size, or not finite, or a file cannot be read.
    """
    for name, tensor in own.items():
        if shapes[name] != tuple(tensor.shape):
            raise ValueError(f"{name} must be {tuple(tensor.shape)}, but is {shapes[name]}")
    tensors: dict[str, Tensor] = {}
    for file, before in files.items():
        try:
            if (folder / file).exists():
                tensors |= {f"{before}{name}": tensor for name, tensor in load_file(folder / file).items()}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} must be readable as safetensors, but {error}") from None
    for name in own:
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ValueError(f"{name} must hold finite numbers, but does not")
    return tensors
