"""Static word vectors from a local text file: word2vec's, GloVe's or fastText's.

Each line is a word and its numbers, parted by blanks; a first line of two whole numbers (rows and width) is skipped.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainables.data.paths import check_file
from trainables.faults import FaultsError
from trainables.methods.no_bert.words import hash_word

logger = logging.getLogger(__name__)

_LONGEST = 1 << 20  # characters of the first line: a word and some thousand numbers have far fewer


def vector_width(path: Path) -> int:
    """The numbers of a vector, from the file's first vector alone. Raises `FaultsError` where there is none."""
    try:
        check_file(path)
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            parts = _parts(lines.readline(_LONGEST))
            if _is_header(parts):
                parts = _parts(lines.readline(_LONGEST))
    except (OSError, ValueError) as error:
        raise FaultsError("vectors", [f"must be a readable file, but {error}"]) from None
    if len(parts) < 2 or _numbers(parts[1:]) is None:
        rule = "must hold a word and its numbers on each line, parted by blanks"
        raise FaultsError("vectors", [f"{rule}, but {path} begins with {' '.join(parts)[:60]!r}"])
    return len(parts) - 1


def read_vectors(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The words' hashes, ascending [V], and their vectors [V, E], float32, of a whole file.

    Of lines that are no vector of the first one's width (phrases with blanks, a torn last line) none is taken, and of a
    word that stands twice the first line. Raises `FaultsError` where the file holds no vector.
    """
    width = vector_width(path)
    stat = path.stat()
    return _read(path, width, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, width: int, changed_at: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    vectors: dict[int, np.ndarray] = {}
    skipped = 0
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines):
            parts = _parts(line)
            values = _numbers(parts[1:]) if len(parts) == width + 1 else None
            if values is not None:
                vectors.setdefault(hash_word(parts[0]), values)
            elif parts and not (number == 0 and _is_header(parts)):
                skipped += 1
    if skipped:
        logger.warning("%s: %d lines are no word with %d numbers and are left out", path, skipped, width)
    order = sorted(vectors)
    return np.array(order, np.int64), np.stack([vectors[each] for each in order])


class StaticVectors(nn.Module):
    """Frozen vectors of known words; zeros of others."""

    hashes: Tensor

    def __init__(self, path: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        hashes, vectors = read_vectors(path)
        self.register_buffer("hashes", torch.from_numpy(hashes).to(device), persistent=False)
        self.vectors = nn.Parameter(torch.from_numpy(vectors).to(device=device, dtype=dtype), requires_grad=False)

    def forward(self, hashes_T: Tensor) -> Tensor:
        """(T, E) in float32 for the hashes of words."""
        places = torch.searchsorted(self.hashes, hashes_T).clamp_max(len(self.hashes) - 1)
        is_known = self.hashes[places] == hashes_T
        return self.vectors[places].float() * is_known[:, None]


def _parts(line: str) -> list[str]:
    return line.split()


def _is_header(parts: list[str]) -> bool:
    return len(parts) == 2 and all(part.isdecimal() for part in parts)


def _numbers(parts: list[str]) -> np.ndarray | None:
    try:
        values = np.array(parts, np.float32)
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
