"""Tokenised rows and the order they are trained in.

A task is tokenised once per (task, tokenizer, max_length) and kept as an Arrow IPC file that every later process maps
into memory. Batches are built from row indices alone, so the order of a trial is a function of its seed and the row
lengths and can be known before the first step. Needs no torch.

Suffixes: N rows of a split, B rows of a batch, L word pieces of its longest row, T optimizer steps of a trial.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from trainables.data.windows import Windows, cut_windows
from trainables.faults import FaultsError
from trainables.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # of the cache file; raise it when its content changes
WINDOW = 16  # batches whose rows are put in order of length together


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedSplit:
    """One split as flat arrays: row i is `input_ids[offsets[i]:offsets[i + 1]]`. All are views, none a copy."""

    offsets: np.ndarray  # int64 [N + 1]
    input_ids: np.ndarray  # int32 [word pieces of all rows], special tokens included
    token_type_ids: np.ndarray  # int8 [word pieces of all rows]; 0 everywhere where the tokenizer has none
    labels: np.ndarray  # [N], int64 classes or float64 scores; int64 [N, 2]: where an answer starts and ends
    pad_token_id: int
    windows: Windows | None = None  # of what the rows are windows, where a context may be too long for one row

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Word pieces of each row, int64 [N]."""
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some rows, padded on the right to one length; every array can go to `torch.from_numpy`."""

    input_ids: np.ndarray  # int64 [B, L]
    token_type_ids: np.ndarray  # int64 [B, L]
    lengths: np.ndarray  # int64 [B]: word pieces of each row, the rest is padding
    labels: np.ndarray  # [B], int64 classes or float32 scores; int64 [B, 2], the first and last piece of an answer


def tokenize(
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_fingerprint: str,
    max_length: int,
    cache_dir: Path | None = None,
) -> dict[str, TokenizedSplit]:
    """Every split of a task in word pieces, cut to `max_length` of them (of a pair, the longer text first).

    Where the task is extractive question answering, a context is cut into as many rows as hold it: see
    `trainables.data.windows`.
    Reads the cache where it holds them and fills it where it does not; a cache file that is damaged is written
    anew, and one that cannot be written costs time only. `cache_dir` defaults to `$ADAPTUNE_CACHE`, else
    `~/.cache/adaptune`. `tokenizer_fingerprint` must differ for tokenizers that cut differently.
    Raises `FaultsError` where the tokenizer cannot pad, or `max_length` holds no pair of texts.
    """
    if tokenizer.pad_token_id is None:
        raise FaultsError("tokenizer", [f"must have a padding token, but {tokenizer.name_or_path!r} has none"])
    path = cache_path(task.fingerprint, tokenizer_fingerprint, max_length, cache_dir)
    content = _read_cache(path)
    if content is None:
        content = {name: _tokenize_split(table, tokenizer, max_length) for name, table in task.splits.items()}
        try:
            _write_cache(path, content)
        except OSError as error:
            logger.warning("cannot keep tokenised rows in %s, so the next process tokenises again: %s", path, error)
    return {name: _split(batch, tokenizer.pad_token_id, task.splits[name]) for name, batch in content.items()}


def encode(table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int) -> TokenizedSplit:
    """Rows that are used once, tokenised as a split and kept nowhere. Columns as in a task's splits."""
    if tokenizer.pad_token_id is None:
        raise FaultsError("tokenizer", [f"must have a padding token, but {tokenizer.name_or_path!r} has none"])
    return _split(_tokenize_split(table, tokenizer, max_length), tokenizer.pad_token_id, table)


def cache_path(fingerprint: str, tokenizer_fingerprint: str, max_length: int, cache_dir: Path | None = None) -> Path:
    """Where the tokenised rows of a task are kept."""
    root = cache_dir or Path(os.environ.get("ADAPTUNE_CACHE") or Path.home() / ".cache" / "adaptune")
    key = "\n".join([str(FORMAT_VERSION), fingerprint, tokenizer_fingerprint, str(max_length)])
    return root.expanduser() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"


def num_steps(n: int, *, batch_size: int, num_epochs: int) -> int:
    """Optimizer steps T of a trial over n rows: max(1, int(n / batch_size * num_epochs)), as adapter-bert counts."""
    return max(1, n * num_epochs // batch_size)


def epoch_ends(n: int, *, batch_size: int, num_epochs: int) -> list[int]:
    """The number of steps after which each epoch ends: T * e / num_epochs, rounded; the last is T.

    Strictly increasing, unless there are fewer steps than epochs.
    """
    steps = num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    return [max(1, (2 * steps * e + num_epochs) // (2 * num_epochs)) for e in range(1, num_epochs + 1)]


def training_batches(lengths: np.ndarray, *, batch_size: int, num_epochs: int, seed: int) -> list[np.ndarray]:
    """The whole order of a trial: T arrays of `batch_size` row indices, a function of lengths and seed only.

    The rows are a stream of one random permutation after the other, so an epoch meets every row about once (T is
    rounded down, and a batch may straddle two epochs). Rows of similar length share a batch, so that padding is
    small: windows of about 16 batches, counted from the start of an epoch and none reaching over its end, are put in
    order of length and cut into batches. Where in a window the short and the long batches come is shuffled, but the
    same for every seed: trials that train in step, or any number of windows apart, meet batches of similar length.
    """
    n = len(lengths)
    if not n:
        raise ValueError("training_batches: needs at least 1 row, but got 0")
    rng = np.random.Generator(np.random.Philox(seed))
    steps = num_steps(n, batch_size=batch_size, num_epochs=num_epochs)
    passes = -(-steps * batch_size // n)
    stream = np.concatenate([rng.permutation(n) for _ in range(passes)])[: steps * batch_size]
    batches: list[np.ndarray] = []
    start = 0
    for end in epoch_ends(n, batch_size=batch_size, num_epochs=num_epochs):
        while start < end:
            # What is left of an epoch after its last whole window makes that one longer, unless it is long itself.
            size = WINDOW if end - start >= WINDOW + WINDOW // 2 else end - start
            rows = stream[start * batch_size : (start + size) * batch_size]
            ordered = rows[np.argsort(lengths[rows], kind="stable")].reshape(size, batch_size)
            batches += list(ordered[np.random.Generator(np.random.Philox(size)).permutation(size)])
            start += size
    return batches


def evaluation_batches(lengths: np.ndarray, *, max_tokens: int = 16384) -> list[np.ndarray]:
    """Every row exactly once, longest first, in batches of at most `max_tokens` word pieces, padding included.

    Longest first, so that a batch that does not fit into memory fails at once. A row longer than `max_tokens` is a
    batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def pad(split: TokenizedSplit, rows: np.ndarray, *, multiple_of: int = 1) -> Batch:
    """The given rows of a split as one batch, padded to the longest of them.

    `multiple_of` rounds that length up; 8 suits the tensor cores of a GPU, 1 is best on a CPU.
    """
    lengths_B = split.lengths[rows]
    longest = -(-int(lengths_B.max()) // multiple_of) * multiple_of
    position_L = np.arange(longest)
    mask_BL = position_L < lengths_B[:, None]
    # Padding positions point at word piece 0 rather than past the end; the mask overwrites what they fetch.
    index_BL = np.where(mask_BL, split.offsets[rows][:, None] + position_L, 0)
    labels_B = split.labels[rows]
    return Batch(
        input_ids=np.where(mask_BL, split.input_ids[index_BL], split.pad_token_id).astype(np.int64),
        token_type_ids=np.where(mask_BL, split.token_type_ids[index_BL], 0).astype(np.int64),
        lengths=lengths_B,
        labels=labels_B if labels_B.dtype == np.int64 else labels_B.astype(np.float32),
    )


def _tokenize_split(table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int) -> pa.RecordBatch:
    """A split as one record batch: input_ids, token_type_ids (lists) and label; more where rows are windows."""
    # Said explicitly, or the library warns (and stops using threads) when a process that tokenised forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "answers" in table.column_names:
        return cut_windows(table, tokenizer, max_length)
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    for chunk in table.to_batches(max_chunksize=2048):
        texts = [chunk.column(name).to_pylist() for name in ("text_a", "text_b") if name in chunk.schema.names]
        rows: Mapping[str, Sequence[Sequence[int]]] = tokenizer(
            *texts,
            truncation=True,
            max_length=max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids += [np.asarray(row, np.int32) for row in rows["input_ids"]]
        types += [np.asarray(row, np.int8) for row in rows["token_type_ids"]]
    offsets = pa.array(np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64))
    flat = {"input_ids": (ids, np.int32), "token_type_ids": (types, np.int8)}
    columns: dict[str, pa.Array] = {
        name: pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([*parts, np.empty(0, kind)], dtype=kind)))
        for name, (parts, kind) in flat.items()
    }
    columns["label"] = table.column("label").combine_chunks()
    return pa.RecordBatch.from_pydict(columns)


def _split(batch: pa.RecordBatch, pad_token_id: int, table: pa.Table) -> TokenizedSplit:
    """`table` is what was tokenised; the texts that answers are cut from are kept nowhere else."""
    flat = _arrays(batch)
    windows = None
    if "question" in flat:
        windows = Windows(
            question=flat["question"],
            char_start=flat["char_start"],
            char_end=flat["char_end"],
            may_start=flat["may_start"].view(np.bool_),
            table=table,
        )
    return TokenizedSplit(
        offsets=batch.column("input_ids").offsets.to_numpy(),
        input_ids=flat["input_ids"],
        token_type_ids=flat["token_type_ids"],
        labels=flat["label"] if windows is None else flat["label"].reshape(-1, 2),
        pad_token_id=pad_token_id,
        windows=windows,
    )


def _arrays(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Every column's values one after the other, whether they come alone or in lists."""
    return {
        name: (column if pa.types.is_primitive(column.type) else column.flatten()).to_numpy(zero_copy_only=False)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def _digest(batches: Sequence[pa.RecordBatch]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        for array in (batch.column("input_ids").offsets.to_numpy(), *_arrays(batch).values()):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _write_cache(path: Path, splits: Mapping[str, pa.RecordBatch]) -> None:
    """Write all splits into one file, a record batch each, and only then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    metadata = {"splits": ",".join(splits), "sha256": _digest(list(splits.values()))}
    schema = next(iter(splits.values())).schema.with_metadata(metadata)
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in splits.values():
                writer.write_batch(batch.replace_schema_metadata(metadata))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_cache(path: Path) -> dict[str, pa.RecordBatch] | None:
    """What the cache holds, mapped into memory; None where it holds nothing, or nothing whole."""
    if not path.exists():
        return None
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata: dict[bytes, Any] = reader.schema.metadata or {}
        names = metadata[b"splits"].decode().split(",")
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        if len(batches) != len(names) or _digest(batches) != metadata[b"sha256"].decode():
            raise ValueError("its content is not what was written")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        logger.warning("%s is damaged and is written anew: %s", path, error)
        return None
    return dict(zip(names, batches, strict=True))
