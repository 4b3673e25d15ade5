"""Why a folder is no backbone: faults of its weights and its tokenizer, with what mends them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from trainables.backbones.tokenizer_files import VOCABULARIES, num_ids, vocabulary_files
from trainables.data.encoding import LFS_POINTER
from trainables.data.paths import existing_path
from trainables.data.remote import is_remote
from trainables.nn.encoder_shape import EncoderShape


def no_weights(name: str, folder: Path) -> str:
    """The fault of a folder without weights that are read here, and the command that converts those it has."""
    others = sorted(path.name for path in folder.glob("*.bin"))
    came = f"holds {', '.join(others)}, which may run code when read" if others else "holds none"
    if is_remote(name):
        came = "holds none"  # nothing else was fetched
        folder, copy = Path(name.partition("?")[0]), name.partition("?")[0].rstrip("/").rpartition("/")[2]
        convert = f"AutoModel.from_pretrained('{copy}').save_pretrained('{copy}')"
        then = f", where {copy} is a copy of it; then put what that wrote beside what is there"
    elif existing_path(name) is not None:
        convert, then = f"AutoModel.from_pretrained('{folder}').save_pretrained('{folder}')", ""
    else:
        # What the hub's cache holds is not ours to write to, so the tokenizer goes along to another folder.
        repository = name.partition("@")[0]
        target = f"{repository.rpartition('/')[2]}-safetensors"
        kinds = "(AutoModel, AutoTokenizer)"
        convert = f"[kind.from_pretrained('{repository}').save_pretrained('{target}') for kind in {kinds}]"
        then = f"; then name {target} as the backbone"
    command = f'python -c "from transformers import AutoModel, AutoTokenizer; {convert}"'
    return (
        f"weights must be a model.safetensors (or its shards with an index), but {folder} {came}. "
        f"Weights that you trust are converted by: {command}{then}"
    )


def pointers(paths: Iterable[Path]) -> list[str]:
    """The fault of files that Git LFS has left pointers of."""
    names = [path.name for path in paths if path.is_file() and _begins_as_pointer(path)]
    if not names:
        return []
    rule = "must hold its files themselves, but of these there are pointers of Git LFS"
    return [f"{rule}: {', '.join(names)}. Run `git lfs pull` in its repository"]


def _begins_as_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as content:
            return content.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:  # whoever reads it says so
        return False


def tokenizer_faults(folder: Path, shape: EncoderShape) -> list[str]:
    """What the files of a folder show to be wrong of its tokenizer.

    Raises `ValueError` where one is damaged.
    """
    known = ("tokenizer.json", "vocab.txt", *VOCABULARIES)
    if not any(any(folder.glob(pattern)) for pattern in known):
        return [f"its tokenizer must have a vocabulary (one of {', '.join(known)}), but {folder} holds none"]
    models = [path.name for path in vocabulary_files(folder) if path.suffix == ".model"]
    # What transformers says then is about yet another library.
    if models and not (folder / "vocab.txt").exists() and find_spec("sentencepiece") is None:
        code = f"from transformers import AutoTokenizer as T; T.from_pretrained('{folder}').save_pretrained('{folder}')"
        rule = f"its tokenizer is the SentencePiece model {models[0]} without a tokenizer.json"
        return [f'{rule}: pip install sentencepiece, which reads it, or write one where that is: python -c "{code}"']
    ids = num_ids(folder)
    return [] if ids is None or ids <= shape.vocab_size else [too_many_ids(ids, shape)]


def too_many_ids(num_ids: int, shape: EncoderShape) -> str:
    """The fault of a tokenizer with more word pieces than there are embeddings."""
    return (
        f"its tokenizer must give at most {shape.vocab_size} ids (vocab_size), the rows of its word embeddings, but "
        f"gives {num_ids}: save the model again after model.resize_token_embeddings(len(tokenizer)), or the tokenizer "
        "without the tokens that were added to it"
    )


def foreign_prefix(missing: Sequence[str], present: Iterable[str]) -> str | None:
    """What stands before every missing tensor's name in a checkpoint; None where they are not all there so."""
    names = set(present)
    for name in sorted(names):
        prefix = name.removesuffix(missing[0])
        if prefix != name and all(f"{prefix}{each}" in names for each in missing):
            return prefix
    return None
