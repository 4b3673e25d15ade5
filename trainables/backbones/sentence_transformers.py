"""Folders of sentence-transformers: where the encoder lies in one, what reads it, and what is put before each text.

`modules.json` lists the parts of a model. The encoder and its pooling are taken; what follows them, a normalisation or
a further layer, is not computed, for the head is trained anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.paths import read_json

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
SETTINGS = "sentence_*_config.json"
# Where the parts lie in folders without a list of them, and what a download asks for.
TRANSFORMER, POOLING = "0_Transformer", "1_Pooling"

# What sentence-transformers calls a pooling -> what a head here reads.
_POOLINGS = {"mean": "mean", "cls": "first"}
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a folder declares of the encoder in it; of a folder that is not of sentence-transformers nothing."""

    encoder: Path  # the folder with config.json, tokenizer and weights
    pooling: str | None  # what the model was trained to be read by; None where that is not said, or not computed here
    prompt: str  # what its texts begin with
    lowercases: bool  # whether its texts are put in lower case, whatever its tokenizer does


def read_layout(folder: Path) -> Layout:
    """What a folder declares. Raises `ValueError` with one sentence where a file is damaged or names what is not ours.

    A prompt is taken where the folder makes one the default (`default_prompt_name`), as its own library does.
    """
    paths = _module_paths(folder)
    encoder = folder / paths.get("Transformer", "")
    if not (encoder / "config.json").exists() and (folder / TRANSFORMER / "config.json").exists():
        encoder = folder / TRANSFORMER
    pooled = folder / paths.get("Pooling", POOLING) / "config.json"
    prompt = _default_prompt(folder / PROMPTS)
    if prompt and (_read(pooled, dict) or {}).get("include_prompt") is False:
        rule = "include_prompt must be true or left out beside a default prompt, since what is read are all word pieces"
        raise ValueError(f"{pooled}: {rule}, but it is false; a copy of the folder without default_prompt_name is read")
    return Layout(
        encoder=encoder, pooling=_declared_pooling(pooled), prompt=prompt, lowercases=_declared_lowercase(encoder)
    )


def _module_paths(folder: Path) -> dict[str, str]:
    """The folder of each part by its kind; none where there is no list of them."""
    path = folder / MODULES
    modules = _read(path, list)
    if modules is None:
        return {}
    try:
        paths = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} must list modules with type and path, but lacks or misstates {error}") from None
    if "Transformer" not in paths:
        raise ValueError(f"{path} must list a Transformer, but lists {', '.join(paths) or 'nothing'}")
    for name, part in paths.items():
        if not (folder / part).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} must name folders below its own, but {name} is at {part!r}")
    return paths


def _declared_pooling(path: Path) -> str | None:
    declared = _read(path, dict)
    if declared is None:
        return None
    if isinstance(mode := declared.get("pooling_mode"), str):
        return _POOLINGS.get(mode)
    chosen = [name for name, value in declared.items() if name.startswith("pooling_mode_") and value is True]
    return _FLAGS.get(chosen[0]) if len(chosen) == 1 else None  # several are joined, which a head here does not read


def _declared_lowercase(encoder: Path) -> bool:
    """Whether the settings of the encoder's part say so; older versions named their file by the kind of model."""
    for path in sorted(encoder.glob(SETTINGS)):
        value = (_read(path, dict) or {}).get("do_lower_case", False)
        if not isinstance(value, bool):
            raise ValueError(f"{path}: do_lower_case must be true or false, but got {value!r}")
        if value:
            return True
    return False


def _default_prompt(path: Path) -> str:
    declared: Mapping[str, Any] = _read(path, dict) or {}
    name = declared.get("default_prompt_name")
    if name is None:
        return ""
    prompts = declared.get("prompts")
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        known = ", ".join(prompts) if isinstance(prompts, dict) and prompts else "none"
        raise ValueError(
            f"{path} must hold the prompt that default_prompt_name names, but {name!r} is none of: {known}"
        )
    return str(prompts[name])


def _read(path: Path, kind: type) -> Any:
    """The JSON in a file; None where there is no file."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be readable as JSON, but {error}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON {'object' if kind is dict else 'array'}, but got {content!r:.80}")
    return content
