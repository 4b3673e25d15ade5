"""Tokenised rows.

A task is tokenised once per (task, tokenizer, max_length) and kept as an Arrow IPC file that every later process maps
into memory. Needs no torch.

Suffixes: N rows of a split.
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

from trainables.cache import cache_folder
from trainables.data.windows import Windows, cut_windows, tokenizing
from trainables.faults import FaultsError
from trainables.predictions import label_values
from trainables.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2  # of the cache file; raise it when its content changes


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedSplit:
    """One split as flat arrays: row i is `input_ids[offsets[i]:offsets[i + 1]]`. All are views, none a copy."""

    offsets: np.ndarray  # int64 [N + 1]
    input_ids: np.ndarray  # int32 [word pieces of all rows], special tokens included
    token_type_ids: np.ndarray  # int8 [word pieces of all rows]; 0 everywhere where the tokenizer has none
    # [N], int64 classes or float64 scores; bool [N, C], which of several labels; int64 [N, 2], where an answer lies
    labels: np.ndarray
    windows: Windows | None = None  # of what the rows are windows, where a context may be too long for one row

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Word pieces of each row, int64 [N]."""
        return np.diff(self.offsets)


def tokenize(
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_fingerprint: str,
    max_length: int,
    cache_dir: Path | None = None,
    *,
    prompt: str = "",
) -> dict[str, TokenizedSplit]:
    """Every split of a task in word pieces, cut to `max_length` of them (of a pair, the longer text first).

    Each text begins with `prompt`, but those that answers are cut from.

    Where the task is extractive question answering, a context is cut into as many rows as hold it: see
    `trainables.data.windows`.
    Reads the cache where it holds them and fills it where it does not; a cache file that is damaged is written
    anew, and one that cannot be written costs time only. `cache_dir` defaults to `$ADAPTUNE_CACHE`, else
    `~/.cache/adaptune`. `tokenizer_fingerprint` must differ for tokenizers that cut differently, and for prompts.
    Raises `FaultsError` where `max_length` leaves no room for a word piece of each text, or the tokenizer makes none of
    a text.
    """
    path = cache_path(task.fingerprint, tokenizer_fingerprint, max_length, cache_dir)
    content = _read_cache(path)
    if content is None:
        content = {name: _tokenize_split(table, tokenizer, max_length, prompt) for name, table in task.splits.items()}
        try:
            _write_cache(path, content)
        except OSError as error:
            logger.warning("cannot keep tokenised rows in %s, so the next process tokenises again: %s", path, error)
    return {name: _split(batch, task.splits[name]) for name, batch in content.items()}


def length_faults(
    tokenizer: PreTrainedTokenizerFast, max_length: int, *, pair: bool, answers: bool = False
) -> list[str]:
    """The fault of a max_length that leaves no room for a word piece of each text, with the smallest that does.

    `answers` are cut from the second text of a pair.
    """
    least = tokenizer.num_special_tokens_to_add(pair=pair) + 1 + pair
    if max_length >= least:
        return []
    shown = "of a question and its context each" if answers else "of each text of a pair" if pair else "of a text"
    return [f"max_length: must be at least {least} to show a word piece {shown}, but got {max_length}"]


def encode(table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int, *, prompt: str = "") -> TokenizedSplit:
    """Rows that are used once, tokenised as a split and kept nowhere. Columns as in a task's splits."""
    return _split(_tokenize_split(table, tokenizer, max_length, prompt), table)


def cache_path(fingerprint: str, tokenizer_fingerprint: str, max_length: int, cache_dir: Path | None = None) -> Path:
    """Where the tokenised rows of a task are kept."""
    root = cache_dir or cache_folder()
    key = "\n".join([str(FORMAT_VERSION), fingerprint, tokenizer_fingerprint, str(max_length)])
    return root.expanduser() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"


def _tokenize_split(
    table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int, prompt: str
) -> pa.RecordBatch:
    """A split as one record batch: input_ids, token_type_ids (lists) and label; more where rows are windows."""
    # Said explicitly, or the library warns (and stops using threads) when a process that tokenised forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    answers = "answers" in table.column_names
    if faults := length_faults(tokenizer, max_length, pair="text_b" in table.column_names, answers=answers):
        raise FaultsError("max_length", faults)
    if answers:
        return cut_windows(table, tokenizer, max_length)
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    for chunk in table.to_batches(max_chunksize=2048):
        texts = [chunk.column(name).to_pylist() for name in ("text_a", "text_b") if name in chunk.schema.names]
        if prompt:
            texts = [[prompt + text for text in column] for column in texts]
        with tokenizing():
            rows: Mapping[str, Sequence[Sequence[int]]] = tokenizer(
                *texts,
                truncation=True,
                max_length=max_length,
                return_token_type_ids=True,
                return_attention_mask=False,
                verbose=False,
            )
        if none := [len(ids) + row for row, own in enumerate(rows["input_ids"]) if not own]:
            rule = "texts must give a word piece each where the tokenizer adds none of its own"
            shown = ", ".join(str(row + 1) for row in none[:5])
            raise FaultsError("texts", [f"{rule}, but {len(none)} of these rows give none, such as row {shown}"])
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


def _split(batch: pa.RecordBatch, table: pa.Table) -> TokenizedSplit:
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
        labels=label_values(batch.column("label")),
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
