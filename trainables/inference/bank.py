"""Many saved adapters over one frozen backbone, which answers for texts of several tasks in one pass.

    bank = adaptune.AdapterBank("minilm")
    bank.add("sentiment", "adapters/sentiment")
    bank.add("paraphrase", "adapters/paraphrase")
    bank.predict([("sentiment", "a joy"), ("paraphrase", ("She ran.", "She was running."))])

Suffixes: S sequences of a batch, T its word pieces, L word pieces of the longest, C outputs.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.backbones.loading import Backbone, load_backbone
from trainables.data.order import evaluation_batches
from trainables.data.tokenized import TokenizedSplit
from trainables.device.current import working_on
from trainables.device.dtype import compute_dtype
from trainables.device.hardware import device_named
from trainables.faults import FaultsError, unknown_name
from trainables.inference.predictor import Predictor
from trainables.inference.saved_adapter import load
from trainables.methods import uses_backbone
from trainables.nn.encoder import Prefix
from trainables.nn.mixed import MixedEncoder, Segment
from trainables.nn.pieces import Pieces, lay, pieces_of
from trainables.training.evaluation import MAX_TOKENS
from trainables.training.loss import NOWHERE

Text = str | tuple[str, str]
Answer = str | int | float | list[tuple[str | int, float]]  # as `Predictor.predict` gives them
# Faults of so many texts are told; more would say the same.
_MOST_TOLD = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class _Encoded:
    """The texts of one task in a request: as word pieces, and which of the request's they are."""

    name: str
    predictor: Predictor
    split: TokenizedSplit
    places: Sequence[int]


class AdapterBank:
    """Saved adapters over one frozen backbone, by name.

    Args:
        backbone: a packaged encoder, a local folder, a hub id, or one that is loaded.
        device: "cpu", "cuda", "cuda:1".
        precision: of products, "fp32", "bf16", or "auto": bf16 where the device computes in it.

    Adapters of any size and of every method that leaves the backbone's weights as they are may stand side by side
    (`adapter`, `lora`, `bitfit`, `layernorm`, `linear_probe` among them), with heads of any size. What a task answers
    depends on its own weights and on the batch's shape, never on which other tasks are in the bank or in the batch. May
    be used from several threads. Raises `FaultsError` for a backbone whose layers are not BERT's
    (ModernBERT, ALBERT).
    """

    def __init__(self, backbone: str | Backbone, *, device: str = "cpu", precision: str = "fp32") -> None:
        if isinstance(backbone, str):
            place = device_named(device)
            backbone = load_backbone(backbone, device=place, compute_dtype=compute_dtype(precision, place))
        self.backbone = backbone
        try:
            self._mixed = MixedEncoder(backbone.encoder)
        except ValueError as why:
            raise FaultsError(
                "bank", [f"backbone: must be built like BERT, but {why}; adaptune.load serves it"]
            ) from why
        self._predictors: dict[str, Predictor] = {}
        self._lock = threading.Lock()

    @property
    def adapters(self) -> Mapping[str, Predictor]:
        """What is in the bank, by name, in the order it was added."""
        return dict(self._predictors)

    def add(self, name: str, path: str | Path) -> None:
        """Load a saved adapter under a name that is free.

        Raises `FaultsError` where its folder is faulty, its backbone is another, or its method cannot be served
        together with others; `adaptune.load` serves such a one alone.
        """
        self._check_free(name)
        predictor = load(path, backbone=self.backbone)
        predictor.model.eval()
        method = predictor.config.method
        why = "it reads no backbone" if not uses_backbone(method) else None
        with self._lock:
            self._check_free(name)  # another thread may have added one meanwhile
            try:
                if why is None:
                    self._mixed.add(name, predictor.model.encoder)
            except ValueError as reason:
                why = str(reason)
            if why is not None:
                rule = f"{method} cannot be served together with others"
                raise FaultsError(f"bank: {name}", [f"{rule}, because {why}; adaptune.load serves it alone"])
            self._predictors[name] = predictor

    def _check_free(self, name: str) -> None:
        if name in self._predictors:
            raise FaultsError("bank", [f"name: must be free, but there is a {name!r}; remove it first"])

    def remove(self, name: str) -> None:
        """Let go of an adapter. Raises `FaultsError` where there is none of this name."""
        with self._lock:
            if name not in self._predictors:
                raise FaultsError("bank", [unknown_name("adapter", name, self._predictors)])
            self._mixed.remove(name)
            del self._predictors[name]

    def predict(self, texts: Iterable[tuple[str, Text]]) -> list[Answer]:
        """What each adapter says of its text, in the order given: as `Predictor.predict` says it.

        `texts` are pairs of an adapter's name and a text, or a pair of texts where the task is one of pairs. Raises
        `FaultsError` with the faults of all of them.
        """
        return [answer for answer, _ in self._answer(list(texts))]

    def logits(self, texts: Iterable[tuple[str, Text]]) -> list[np.ndarray]:
        """The outputs (C,) of each adapter for its text, float32, in the order given.

        Of extractive question answering (windows, L, 2), as `Predictor.logits` gives them. Raises as `predict`.
        """
        return [outputs for _, outputs in self._answer(list(texts))]

    def answer(self, texts: Iterable[tuple[str, Text]]) -> list[tuple[Answer, np.ndarray]]:
        """What `predict` and `logits` give, of one pass. Raises as they do."""
        return self._answer(list(texts))

    def faults_of(self, texts: Sequence[tuple[str, Text]]) -> list[str]:
        """Every fault of such texts, a sentence each, those of the first ten."""
        faults: list[str] = []
        for place, each in enumerate(texts):
            if len(faults) == _MOST_TOLD:
                break
            if not isinstance(each, list | tuple) or len(each) != 2:
                rule = "must be a pair of an adapter's name and its text"
                faults.append(f"texts[{place}]: {rule}, but got {_shortened(each)}")
                continue
            name, text = each
            predictor = self._predictors.get(name) if isinstance(name, str) else None
            if predictor is None:
                faults.append(f"texts[{place}]: {unknown_name('adapter', name, self._predictors)}")
                continue
            parts = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list | tuple) else ()
            if len(parts) != 1 + predictor.task.pair or not all(isinstance(part, str) for part in parts):
                rule = "a pair of texts" if predictor.task.pair else "one text"
                faults.append(f"texts[{place}]: {name} must be given {rule}, but got {_shortened(text)}")
        return faults

    def _answer(self, texts: Sequence[tuple[str, Text]]) -> list[tuple[Answer, np.ndarray]]:
        with self._lock:
            if faults := self.faults_of(texts):
                raise FaultsError("predict", faults)
            encoded = self._encode(texts)
            with torch.inference_mode(), working_on(self.backbone.encoder.device):
                outputs = self._outputs(encoded)
        answers: list[tuple[Answer, np.ndarray] | None] = [None] * len(texts)
        for part, found in zip(encoded, outputs, strict=True):
            said: Sequence[Answer] = part.predictor.answers(found, part.split)
            for index, (place, answer) in enumerate(zip(part.places, said, strict=True)):
                windows = part.split.windows
                of_text = found[index] if windows is None else found[np.asarray(windows.question) == index]
                answers[place] = answer, of_text
        return [answer for answer in answers if answer is not None]

    def _encode(self, texts: Sequence[tuple[str, Text]]) -> list[_Encoded]:
        """The texts by adapter; those whose heads read the same of the encoder are neighbours."""
        places: dict[str, list[int]] = {}
        for place, (name, _) in enumerate(texts):
            places.setdefault(name, []).append(place)
        found = []
        for name, own in places.items():
            predictor = self._predictors[name]
            given = [texts[place][1] for place in own]
            if predictor.task.pair:
                split = predictor.encode([str(each[0]) for each in given], [str(each[1]) for each in given])
            else:
                split = predictor.encode([each if isinstance(each, str) else each[0] for each in given])
            found.append(_Encoded(name=name, predictor=predictor, split=split, places=own))
        return sorted(found, key=lambda part: part.predictor.model.encoder.pooling)

    def _outputs(self, encoded: Sequence[_Encoded]) -> list[np.ndarray]:
        """The outputs of each adapter for its rows, in their order."""
        sizes = [len(part.split) for part in encoded]
        owners = np.repeat(np.arange(len(encoded)), sizes)
        rows = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.empty(0, np.int64)
        lengths = np.concatenate([part.split.lengths for part in encoded]) if sizes else rows
        collected: list[list[np.ndarray | None]] = [[None] * size for size in sizes]
        device = self.backbone.encoder.device
        for batch in evaluation_batches(lengths, max_tokens=MAX_TOKENS[device.type]):
            batch = batch[np.argsort(owners[batch], kind="stable")]
            for owner, row, output in zip(
                owners[batch], rows[batch], self._run(encoded, owners[batch], rows[batch], lengths[batch]), strict=True
            ):
                collected[owner][row] = output
        return [_stacked([each for each in own if each is not None]) for own in collected]

    def _run(
        self, encoded: Sequence[_Encoded], owners_S: np.ndarray, rows_S: np.ndarray, lengths_S: np.ndarray
    ) -> list[np.ndarray]:
        """The outputs of one batch's rows, which lie adapter after adapter: one pass through the encoder.

        Where heads read different things of the last layer, its rows are computed kind by kind.
        """
        view, routing = self._mixed.view, self._mixed.routing
        pieces, ids, types = _lay(encoded, owners_S, rows_S, lengths_S, view.device)
        segments = _segments([part.name for part in encoded], owners_S, lengths_S)
        poolings = {part.name: part.predictor.model.encoder.pooling for part in encoded}
        kinds = [list(group) for _, group in itertools.groupby(segments, key=lambda s: poolings[s.task])]
        routing.segments = segments
        hidden: Tensor | None = None
        if len(kinds) > 1:
            view.batch.pieces = pieces
            hidden = view.run_prefix(pieces, len(view.layers) - 1)
        outputs: list[np.ndarray] = []
        for kind in kinds:
            view.pooling = poolings[kind[0].task]
            own_pieces, prefix = pieces, None
            if hidden is not None:
                of_sequences = slice(kind[0].sequences.start, kind[-1].sequences.stop)
                of_rows = slice(kind[0].rows.start, kind[-1].rows.stop)
                laid = lay(rows_S[of_sequences], lengths_S[of_sequences], 1)
                own_pieces = pieces_of(laid, ids[of_rows], types[of_rows], view.device)
                prefix = Prefix(hidden=hidden[of_rows], num_layers=len(view.layers) - 1)
                kind = _from_zero(kind)
                routing.segments = kind
            states = view(own_pieces, prefix)
            for segment in kind:
                outputs += self._heads(segment, states, lengths_S, own_pieces)
        return outputs

    def _heads(self, segment: Segment, states: Tensor, lengths_S: np.ndarray, pieces: Pieces) -> list[np.ndarray]:
        """What the head of a segment's task makes of what it reads: an array a sequence."""
        head = self._predictors[segment.task].model.head
        if len(states) == pieces.num_sequences:
            return list(head(states[segment.sequences]).cpu().numpy())
        outputs = head(states[segment.rows]).cpu().numpy()
        lengths = pieces.sequences.lengths_S[segment.sequences].cpu().numpy()
        return np.split(outputs, np.cumsum(lengths)[:-1])


def _lay(
    encoded: Sequence[_Encoded],
    owners_S: np.ndarray,
    rows_S: np.ndarray,
    lengths_S: np.ndarray,
    device: torch.device,
) -> tuple[Pieces, np.ndarray, np.ndarray]:
    """A batch of rows of several splits, and its word pieces and their types (T,)."""
    splits = [encoded[owner].split for owner in owners_S]
    spans = [slice(s.offsets[row], s.offsets[row + 1]) for s, row in zip(splits, rows_S, strict=True)]
    ids = np.concatenate([split.input_ids[span] for split, span in zip(splits, spans, strict=True)])
    types = np.concatenate([split.token_type_ids[span] for split, span in zip(splits, spans, strict=True)])
    return pieces_of(lay(rows_S, lengths_S, 1), ids, types, device), ids, types


def _segments(names: Sequence[str], owners_S: np.ndarray, lengths_S: np.ndarray) -> list[Segment]:
    found = []
    ends = np.cumsum(lengths_S)
    for owner, group in itertools.groupby(range(len(owners_S)), key=lambda place: owners_S[place]):
        places = list(group)
        first, last = places[0], places[-1]
        rows = slice(int(ends[first] - lengths_S[first]), int(ends[last]))
        found.append(Segment(task=names[owner], rows=rows, sequences=slice(first, last + 1)))
    return found


def _from_zero(segments: Sequence[Segment]) -> list[Segment]:
    """The same segments counted from the first of them."""
    rows, sequences = segments[0].rows.start, segments[0].sequences.start
    return [
        Segment(
            task=each.task,
            rows=slice(each.rows.start - rows, each.rows.stop - rows),
            sequences=slice(each.sequences.start - sequences, each.sequences.stop - sequences),
        )
        for each in segments
    ]


def _stacked(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Outputs of rows as one array, those of shorter rows filled up as padding is."""
    if outputs[0].ndim == 1:
        return np.stack(outputs)
    stacked = np.full((len(outputs), max(map(len, outputs)), outputs[0].shape[1]), NOWHERE, np.float32)
    for place, each in enumerate(outputs):
        stacked[place, : len(each)] = each
    return stacked


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
