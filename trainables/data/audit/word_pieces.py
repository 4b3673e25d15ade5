"""How long the texts of a task are for a backbone, by its tokenizer alone: no weights are read, and no torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from huggingface_hub import try_to_load_from_cache
from tokenizers import Encoding, Tokenizer

from trainables.data import remote
from trainables.data.paths import existing_path, read_json
from trainables.faults import FaultsError
from trainables.packaged import PACKAGED, packaged_folder

_FILE = "tokenizer.json"
_CHUNK = 1000  # rows tokenised at a time
_EXAMPLES = 3  # of what is unknown
_UNKNOWN = ("[UNK]", "<unk>")
_IDEOGRAPHS = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")  # of which a word has one or two


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """A sample of a task's rows in word pieces."""

    backbone: str
    positions: int | None  # as of `Reader`
    max_length: int
    lengths: np.ndarray  # int64 (N,): of each row of the sample, special tokens included
    of_rows: int  # how many rows there were to take it from
    unknown: float  # share of word pieces that stand for what the tokenizer does not know
    unknown_texts: tuple[str, ...]  # some of what these stand for
    per_letter: float  # word pieces a character takes, special tokens aside, an ideograph being three

    @property
    def share_cut(self) -> float:
        """The share of rows that are longer than `max_length`."""
        return float((self.lengths > self.max_length).mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """What of a backbone tells how long texts are for it."""

    backbone: str
    tokenizer: Tokenizer
    positions: int | None  # the most word pieces it can read; None where its configuration does not say


def find_reader(backbone: str) -> Reader | None:
    """A backbone's tokenizer, from its package, its folder, the local cache of the hub or what a URI gave before.

    None where none is at hand: the network is not asked. Raises `FaultsError` where its file is damaged.
    """
    path = _tokenizer_file(backbone)
    if path is None:
        return None
    try:
        tokenizer = _tokenizer(path, path.stat().st_mtime_ns)
    except Exception as fault:  # the library raises no narrower class
        raise FaultsError(f"backbone {backbone}", [f"{path} must be a tokenizer, but {fault}"]) from None
    return Reader(backbone=backbone, tokenizer=tokenizer, positions=_positions(path.parent / "config.json"))


@functools.lru_cache(maxsize=8)
def _tokenizer(path: Path, changed_at: int) -> Tokenizer:
    """Read once per process until the file changes; it cuts nothing off."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _positions(path: Path) -> int | None:
    try:
        found = read_json(path).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):  # a fault for whoever reads the weights
        return None
    return found if isinstance(found, int) else None


def _tokenizer_file(backbone: str) -> Path | None:
    if remote.is_remote(backbone):
        folder = remote.held(backbone)
    else:
        folder = packaged_folder(backbone) if backbone in PACKAGED else existing_path(backbone)
    if folder is not None:
        return folder / _FILE if (folder / _FILE).is_file() else None
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", backbone):
        return None
    repository, _, revision = backbone.partition("@")
    found = try_to_load_from_cache(repository, _FILE, revision=revision or None)
    return Path(found) if isinstance(found, str) else None


def cut_into_pieces(
    splits: Mapping[str, pa.Table],
    reader: Reader,
    *,
    max_length: int,
    most_rows: int,
    most_characters: int,
) -> Pieces:
    """Tokenise rows drawn from all splits with a fixed seed, until there are so many rows or characters of them."""
    names = ["text_a", "text_b"] if all("text_b" in table.column_names for table in splits.values()) else ["text_a"]
    table = pa.concat_tables([table.select(names) for table in splits.values()])
    drawn = np.random.default_rng(0).permutation(table.num_rows)[:most_rows]
    unknown_ids = [number for token in _UNKNOWN if (number := reader.tokenizer.token_to_id(token)) is not None]
    lengths: list[int] = []
    examples: list[str] = []
    characters = letters = pieces = unknown = 0
    for start in range(0, len(drawn), _CHUNK):
        chunk = table.take(pa.array(drawn[start : start + _CHUNK]))
        rows = list(zip(*(chunk.column(name).to_pylist() for name in names), strict=True))
        sizes = np.cumsum([sum(map(len, row)) for row in rows])
        rows = rows[: max(1, int(np.searchsorted(sizes, most_characters - characters, side="right")))]
        encoded = reader.tokenizer.encode_batch([row if len(row) > 1 else row[0] for row in rows])
        characters += int(sizes[len(rows) - 1])
        letters += int(sizes[len(rows) - 1]) + 2 * sum(_ideographs(text) for row in rows for text in row)
        for row in encoded:
            lengths.append(len(row.ids))
            pieces += len(row.ids) - sum(row.special_tokens_mask)
            unknown += sum(row.ids.count(number) for number in unknown_ids)
        for texts, row in zip(rows, encoded, strict=True):
            if len(examples) < _EXAMPLES:
                examples += [text for text in _unknown_in(texts, row, unknown_ids) if text not in examples]
        if characters >= most_characters or len(rows) < chunk.num_rows:
            break
    return Pieces(
        backbone=reader.backbone,
        positions=reader.positions,
        max_length=max_length,
        lengths=np.array(lengths, np.int64),
        of_rows=table.num_rows,
        unknown=unknown / max(1, pieces),
        unknown_texts=tuple(examples[:_EXAMPLES]),
        per_letter=pieces / max(1, letters),
    )


def _unknown_in(texts: Sequence[str], row: Encoding, unknown_ids: Collection[int]) -> list[str]:
    """What of a row's texts became an unknown word piece."""
    return [
        texts[sequence][start:end][:20]
        for number, sequence, (start, end) in zip(row.ids, row.sequence_ids, row.offsets, strict=True)
        if number in unknown_ids and sequence is not None
    ]


def _ideographs(text: str) -> int:
    return 0 if text.isascii() else sum(map(len, _IDEOGRAPHS.findall(text)))
