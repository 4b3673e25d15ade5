"""What the files of a tokenizer say, read without building it: what identifies it, and how many ids it may give.

transformers reads a tokenizer from several files. `tokenizer.json` holds the vocabulary and, for some classes, how a
text is cut; `tokenizer_config.json` and its companions change that. Only what they change identifies a tokenizer:
settings that say what `tokenizer.json` says, what transformers takes by itself, or nothing about word pieces leave a
fingerprint as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainables.data.paths import check_file, read_json

# Vocabularies in other formats, read only where there is no tokenizer.json.
VOCABULARIES = ("*.model", "vocab.json", "bpe.codes", "dict.txt", "vocab.tsv")
MOST_BYTES = 256 << 20  # of a tokenizer.json, several times the largest there is

# Settings that do not decide which word pieces a text gives here: a call states its own length and never pads.
_WITHOUT_EFFECT = {
    "_commit_hash", "_name_or_path", "added_tokens_decoder", "additional_special_tokens", "auto_map", "backend",
    "chat_template", "clean_up_tokenization_spaces", "do_basic_tokenize", "extra_special_tokens", "from_slow",
    "init_inputs", "is_local", "local_files_only", "max_length", "merges_file", "model_input_names",
    "model_max_length", "name_or_path", "never_split", "pad_to_multiple_of", "pad_token_type_id", "padding",
    "padding_side", "processor_class", "special_tokens_map_file", "stride", "tokenizer_class", "tokenizer_file",
    "truncation", "truncation_strategy", "use_fast", "vocab_file",
}  # fmt: skip

# What transformers takes where a setting is absent.
_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "add_bos_token": (None,),
    "add_eos_token": (None,),
    "add_prefix_space": (None, False),
    "do_lower_case": (None, True),
    "legacy": (None, True, False),
    "sp_model_kwargs": (None, {}),
    "split_special_tokens": (None, False),
    "strip_accents": (None,),
    "tokenize_chinese_chars": (None, True),
    "trim_offsets": (None, True),
    "truncation_side": (None, "right"),
    "wordpieces_prefix": (None, "##"),
}

# The special tokens that the families have by their papers, by what they are for.
_USUAL_TOKENS = {
    "bos_token": ("[CLS]", "<s>", "<|begin_of_text|>"),
    "cls_token": ("[CLS]", "<s>"),
    "eos_token": ("[SEP]", "</s>", "<|end_of_text|>"),
    "mask_token": ("[MASK]", "<mask>", "<|mask|>"),
    "pad_token": ("[PAD]", "<pad>", "<|pad|>"),
    "sep_token": ("[SEP]", "</s>"),
    "unk_token": ("[UNK]", "<unk>"),
}
# The tokenizers that encoders of a model_type are published with, beside the one that bears its name.
_USUAL_CLASSES = {
    "bert": {"xlmroberta"},  # the multilingual MiniLM and E5
    "camembert": {"xlmroberta"},
    "data2vec-text": {"roberta"},
    "distilbert": {"bert"},
    "electra": {"bert"},
    "ernie": {"bert"},
}


@dataclass(frozen=True, kw_only=True)
class _Tokenizer:
    """What a tokenizer.json says."""

    settings: Mapping[str, Any]  # that tokenizer_config.json may repeat
    added: Mapping[str, Mapping[str, Any]]  # its added tokens by their text
    ids: Mapping[str, int]  # of the tokens asked about
    highest_id: int


def settings_that_matter(folder: Path, model_type: str) -> dict[str, Any]:
    """What the files beside `tokenizer.json` change of how texts become word pieces; empty where that is nothing.

    Raises `ValueError` with one sentence where a file is damaged.
    """
    config, names = (_read_json(folder / f"{name}.json") for name in ("tokenizer_config", "special_tokens_map"))
    extra_file = _read_json(folder / "added_tokens.json")
    tokenizer = _tokenizer(folder, frozenset(extra_file))
    found: dict[str, Any] = {}
    try:
        for source in (names, config):
            found |= _unusual_settings(source, tokenizer)
        found |= _unusual_class(config.get("tokenizer_class"), model_type)
        decoder = {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'tokenizer_config.json'} must hold a tokenizer's settings, but {error}") from None
    usual = {token for tokens in _USUAL_TOKENS.values() for token in tokens}
    for number, token in decoder.items():
        is_known = _is_among(token, number, tokenizer.added) if tokenizer else _content(token) in usual
        if not is_known:
            found[f"added token {number}"] = token
    ids = tokenizer.ids if tokenizer else {}
    return found | {f"added token {number}": text for text, number in extra_file.items() if ids.get(text) != number}


def vocabulary_files(folder: Path) -> list[Path]:
    """The vocabularies that are read in place of a missing tokenizer.json."""
    if (folder / "tokenizer.json").exists():
        return []
    return sorted({path for pattern in VOCABULARIES for path in folder.glob(pattern)})


def num_ids(folder: Path) -> int | None:
    """One more than the highest id that a tokenizer gives, as far as its files say it; None where they do not.

    Raises `ValueError` with one sentence where a file is damaged.
    """
    if tokenizer := _tokenizer(folder, frozenset()):
        highest = tokenizer.highest_id
    elif (folder / "vocab.txt").exists():
        check_file(folder / "vocab.txt", MOST_BYTES)
        with (folder / "vocab.txt").open("rb") as lines:
            highest = sum(1 for _ in lines) - 1
    else:
        return None
    config, added = (_read_json(folder / f"{name}.json") for name in ("tokenizer_config", "added_tokens"))
    try:
        numbers = [int(number) for number in (*config.get("added_tokens_decoder", {}), *added.values())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder} must number its added tokens, but {error}") from None
    return max([highest, *numbers]) + 1


def is_made_of_lines(folder: Path) -> bool:
    """Whether transformers makes the tokenizer of a folder from lists of word pieces, which takes no time."""
    has_file = (folder / "tokenizer.json").exists()
    return not has_file and not any(path.suffix == ".model" for path in vocabulary_files(folder))


def lowercases(folder: Path) -> bool:
    """Whether the tokenizer.json of a folder puts texts in lower case. Raises `ValueError` where it is damaged."""
    tokenizer = _tokenizer(folder, frozenset())
    return tokenizer is not None and bool(tokenizer.settings.get("do_lower_case"))


def _tokenizer(folder: Path, asked: frozenset[str]) -> _Tokenizer | None:
    """The tokenizer.json of a folder, and the ids that it gives the tokens asked about; None where there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    stat = path.stat()
    return _read_tokenizer(path, asked, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read_tokenizer(path: Path, asked: frozenset[str], size: int, changed_at: int) -> _Tokenizer:
    """Read once as long as its size and time of change stay: vocabularies have up to a quarter of a million pieces."""
    content = _read_json(path)
    try:
        added = {token["content"]: token for token in content.get("added_tokens") or ()}
        ids = content["model"].get("vocab", {})
        if isinstance(ids, list):  # Unigram lists its pieces in order, the other models number them
            ids = {piece: number for number, (piece, _) in enumerate(ids)}
        ids = ids | {text: token["id"] for text, token in added.items()}
        return _Tokenizer(
            settings=_said_by(content),
            added=added,
            ids={text: ids[text] for text in asked if text in ids},
            highest_id=max(ids.values(), default=-1),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a tokenizer, but lacks or misstates {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    try:
        content = read_json(path, most_bytes=MOST_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be readable as JSON, but {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(content).__name__}")
    return content


def _unusual_settings(source: Mapping[str, Any], tokenizer: _Tokenizer | None) -> dict[str, Any]:
    """The settings of a file that say neither what tokenizer.json says nor what goes without saying."""
    said, known = (tokenizer.settings, tokenizer.added) if tokenizer else ({}, {})
    found: dict[str, Any] = {}
    for name, value in source.items():
        if name in _USUAL_TOKENS:
            says_nothing = _is_usual_token(name, value, known)
        else:
            # What tokenizer.json says of it goes before what goes without saying.
            usual = (said[name],) if name in said else _DEFAULTS.get(name, ())
            says_nothing = name in _WITHOUT_EFFECT or value in usual
        if not says_nothing:
            found[name] = value
    extra = [*_listed(source.get("additional_special_tokens")), *_listed(source.get("extra_special_tokens"))]
    if unknown := [token for token in extra if _content(token) not in known]:
        found["additional_special_tokens"] = unknown
    return found


def _said_by(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """What a tokenizer.json says of settings that tokenizer_config.json may repeat."""
    said: dict[str, Any] = {}
    for part in _parts(tokenizer.get("normalizer")):
        if part.get("type") == "BertNormalizer":
            said["do_lower_case"] = part.get("lowercase")
            said["strip_accents"] = part.get("strip_accents")
            said["tokenize_chinese_chars"] = part.get("handle_chinese_chars")
        elif part.get("type") == "Lowercase":
            said["do_lower_case"] = True
    for part in (*_parts(tokenizer.get("pre_tokenizer")), *_parts(tokenizer.get("post_processor"))):
        said |= {name: part[name] for name in ("add_prefix_space", "trim_offsets") if name in part}
    return said


def _parts(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """A step of a tokenizer, or the steps that it is a sequence of."""
    if step is None:
        return
    if step.get("type") == "Sequence":
        for name in ("normalizers", "pretokenizers", "processors"):
            for part in step.get(name, ()):
                yield from _parts(part)
    else:
        yield step


def _is_usual_token(name: str, value: Any, known: Mapping[str, Mapping[str, Any]]) -> bool:
    content = _content(value)
    if content is None:
        return True
    if content not in _USUAL_TOKENS[name]:
        return False
    return content not in known or _is_among(value, None, known)


def _is_among(token: Any, number: int | None, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether tokenizer.json has this token, by this id where one is given, and found in texts in the same way."""
    same = known.get(str(_content(token)))
    if same is None or (number is not None and same["id"] != number):
        return False
    if not isinstance(token, dict):
        return True
    flags = ("lstrip", "normalized", "rstrip", "single_word")
    return all(token.get(flag, same.get(flag)) == same.get(flag) for flag in flags)


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _listed(tokens: Any) -> list[Any]:
    return list(tokens.values()) if isinstance(tokens, dict) else list(tokens or ())


def _unusual_class(name: str | None, model_type: str) -> dict[str, str]:
    """The tokenizer's class, where encoders of this model_type are not published with it."""
    if name is None:
        return {}
    root = name.removesuffix("Fast").removesuffix("Tokenizer").lower()
    own = model_type.replace("-", "").replace("_", "")
    usual = {own, "pretrained", "tokenizersbackend"} | _USUAL_CLASSES.get(model_type, set())
    return {} if root in usual else {"tokenizer_class": root}
