"""Hidden states above frozen layers, computed once for every row of a task instead of in every trial and epoch.

Where a method trains nothing below some layer and nothing is dropped out there, what comes out of that layer is a
property of the row. It is kept in memory up to a bound, and beyond it in an Arrow file that is mapped into memory.

Suffixes: N rows (of a split, or word pieces of a batch), S sequences of a batch, D width.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import torch

from trainables.data.order import evaluation_batches
from trainables.data.tokenized import TokenizedSplit
from trainables.nn.encoder import Encoder, Prefix
from trainables.nn.pieces import Laid
from trainables.training.evaluation import MAX_TOKENS, to_device

logger = logging.getLogger(__name__)

ROWS_PER_CHUNK = 4096
DEFAULT_BYTES = 2**30
# NumPy knows no bf16; states are kept as the integers of the same bits.
_STORED = {torch.bfloat16: (torch.int16, np.int16), torch.float32: (torch.float32, np.float32)}


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixStates:
    """The hidden states of all rows of a split: chunks of `ROWS_PER_CHUNK` rows, each (word pieces, D)."""

    num_layers: int
    chunks: list[np.ndarray]
    split: TokenizedSplit
    dtype: torch.dtype

    def batch(self, laid: Laid, device: torch.device) -> Prefix:
        """The states of a batch's rows (N, D), zeros in dummy rows."""
        stored = _STORED[self.dtype][1]
        states_ND = np.zeros((laid.num_rows, self.chunks[0].shape[1]), stored)
        offsets = self.split.offsets
        for row, place, length in zip(laid.rows_S, laid.starts_S, laid.lengths_S, strict=True):
            chunk = row // ROWS_PER_CHUNK
            start = offsets[row] - offsets[chunk * ROWS_PER_CHUNK]
            states_ND[place : place + length] = self.chunks[chunk][start : start + length]
        return Prefix(hidden=_to_device(states_ND, self.dtype, device), num_layers=self.num_layers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What a head reads of all rows of a split (N, D), the encoder being frozen."""

    values: np.ndarray
    num_layers: int
    split: TokenizedSplit
    dtype: torch.dtype

    def batch(self, laid: Laid, device: torch.device) -> Prefix:
        """The features of a batch's rows (S, D)."""
        hidden = _to_device(self.values[laid.rows_S], self.dtype, device)
        return Prefix(hidden=hidden, num_layers=self.num_layers, is_features=True)

    def in_float64(self) -> torch.Tensor:
        """The features of all rows (N, D), on the CPU."""
        return torch.from_numpy(self.values).view(self.dtype).double()


def _to_device(values: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(values).view(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _in_a_file(values: np.ndarray) -> np.ndarray:
    """The same values, mapped from a file that has lost its name: its space is free again when nobody reads it."""
    with tempfile.TemporaryDirectory(prefix="adaptune-prefix-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "features"
        values.tofile(path)
        # Nobody writes to it, but torch warns of arrays that cannot be written to.
        return np.memmap(path, values.dtype, mode="c", shape=values.shape)


class PrefixCache:
    """The prefix states of one encoder, kept as long as the store.

    Args:
        encoder: the frozen backbone.
        max_bytes: what may be kept in memory, states and features together; what comes after that goes to files, of
            which the store leaves nothing. Where files cannot be written, features stay in memory and states are not
            kept.
    """

    def __init__(self, encoder: Encoder, max_bytes: int = DEFAULT_BYTES) -> None:
        self._encoder = encoder
        self._free_bytes = max_bytes
        # Both hold their splits, so that an id stays its split's own; None: there is no room for the states.
        self._states: dict[tuple[int, int], tuple[TokenizedSplit, PrefixStates | None]] = {}
        self._features: dict[tuple[int, str], Features] = {}

    def states(self, split: TokenizedSplit, num_layers: int) -> PrefixStates | None:
        """The hidden states of a split above the lowest `num_layers` layers, computed at the first call.

        None where there is room for them neither in memory nor in a file: whoever asks computes them with each batch.
        """
        key = (id(split), num_layers)
        if key not in self._states:
            self._states[key] = split, self._kept_states(split, num_layers)
        return self._states[key][1]

    def _kept_states(self, split: TokenizedSplit, num_layers: int) -> PrefixStates | None:
        width, dtype = self._encoder.shape.hidden_size, self._encoder.compute_dtype
        fits = self._take(int(split.offsets[-1]) * width * dtype.itemsize)
        computed = self._compute(split, num_layers)
        try:
            chunks = list(computed) if fits else self._spill(computed)
        except OSError as error:
            logger.warning("states of frozen layers are computed anew for each batch, having no place: %s", error)
            return None
        return PrefixStates(num_layers=num_layers, chunks=chunks, split=split, dtype=dtype)

    def _take(self, size: int) -> bool:
        """Whether there is room in memory for so many bytes, which then count as taken."""
        fits = size <= self._free_bytes
        self._free_bytes -= size if fits else 0
        return fits

    @torch.inference_mode()
    def features(self, split: TokenizedSplit, view: Encoder) -> Features:
        """What a head reads of a split through a view of which nothing is trained, computed at the first call."""
        key = (id(split), view.pooling)
        if key not in self._features:
            encoder = view.eval()
            stored, kind = _STORED[encoder.compute_dtype]
            values = np.empty((len(split), encoder.width), kind)
            for rows in evaluation_batches(split.lengths, max_tokens=MAX_TOKENS[encoder.device.type]):
                _, pieces, _ = to_device(split, rows, 1, encoder.device)
                values[rows] = encoder(pieces).view(stored).cpu().numpy()
            if not self._take(values.nbytes):
                try:
                    values = _in_a_file(values)
                except OSError as error:
                    logger.warning("features take more memory than was planned, having no other place: %s", error)
            self._features[key] = Features(
                values=values, num_layers=encoder.shape.num_layers, split=split, dtype=encoder.compute_dtype
            )
        return self._features[key]

    @torch.inference_mode()
    def _compute(self, split: TokenizedSplit, num_layers: int) -> Iterator[np.ndarray]:
        """Chunk after chunk, each run through the encoder in batches of similar length."""
        encoder = self._encoder.eval()
        stored, kind = _STORED[encoder.compute_dtype]
        for first in range(0, len(split), ROWS_PER_CHUNK):
            rows = np.arange(first, min(first + ROWS_PER_CHUNK, len(split)))
            start, end = split.offsets[rows[0]], split.offsets[rows[-1] + 1]
            chunk = np.empty((int(end - start), encoder.shape.hidden_size), kind)
            for places in evaluation_batches(split.lengths[rows], max_tokens=MAX_TOKENS[encoder.device.type]):
                laid, pieces, _ = to_device(split, rows[places], 1, encoder.device)
                hidden_ND = encoder.run_prefix(pieces, num_layers).view(stored).cpu().numpy()
                sources = np.repeat(split.offsets[laid.rows_S] - start, laid.lengths_S) + laid.positions_T
                chunk[sources] = hidden_ND[laid.places_T]
            yield chunk

    def _spill(self, chunks: Iterator[np.ndarray]) -> list[np.ndarray]:
        """Write chunks to an Arrow file, a record batch each, and map them.

        The file loses its name once it is mapped: its space is free again when nobody reads it any more, however the
        process ends.
        """
        width = self._encoder.shape.hidden_size
        kind = pa.list_(pa.from_numpy_dtype(_STORED[self._encoder.compute_dtype][1]), width)
        schema = pa.schema({"states": kind})
        with tempfile.TemporaryDirectory(prefix="adaptune-prefix-", ignore_cleanup_errors=True) as folder:
            path = str(Path(folder) / "states.arrow")
            with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for chunk in chunks:
                    column = pa.FixedSizeListArray.from_arrays(pa.array(chunk.reshape(-1)), width)
                    writer.write_batch(pa.record_batch([column], schema=schema))
            reader = pa.ipc.open_file(pa.memory_map(path))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        return [batch.column(0).flatten().to_numpy().reshape(-1, width) for batch in batches]
