"""No pre-trained encoder at all: a deep and a wide tower over words, the paper's "no BERT" baseline (section 3.3).

The deep tower reads word embeddings, summed or through a convolution, and passes them through hidden layers; the wide
tower is linear in the text's word n-grams; the head is linear on both. The options are those of the paper's automated
search (Tables 5 and 6 of the appendix, by their number there), to be searched by random sampling with early stopping.
What differs:

- (1) The paper's embedding modules cannot be had. In their place stand embeddings trained here, of hashed words and
  character n-grams (the module `words`), `embedding_dim` wide, or static vectors from a local file (`vectors`).
- (2) With `tune_embeddings` the hashed embeddings are trained; with static vectors they begin at zero and are added to
  them. Without it static vectors stay as they are; without vectors the hashed embeddings stay as they were drawn, the
  same for every seed.
- (6, 7) The convolution's filters are pooled first, then normalised and activated.
- (8) `max_ngram` is the longest n-gram of the wide tower and, as in the paper, the widest filter of the convolution.
- (11) Embedding dropout leaves out channels of the whole text.
- (17, 19) One AdamW trains both towers. The deep tower's learning rate is the trial's `learning_rate`, the wide tower's
  `wide_rate` times that.
- The wide tower has `wide_size` columns that the head combines, so it is a linear map of rank `wide_size`: any there
  is, for as many classes.
- (18, 20) Regularisation is L2 in the loss: of the deep tower's products and of the wide tower's rows.
- (21) The number of training samples is `num_epochs`.

Learning rates of 5e-3 to 5e-2 with batches of 64 suit it. A trial's own `dropout`, where it is given, stands for every
dropout here. Of pairs the words of the second text are told from those of the first, and those in both texts from
either; `max_length` counts the words kept of each text.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trainables.data.tokenized import TokenizedSplit
from trainables.faults import FaultsError, unknown_name
from trainables.methods.no_bert.towers import (
    ACTIVATIONS,
    NORMS,
    BagOfWords,
    Convolution,
    DeepAndWide,
    HiddenLayer,
    WideTower,
)
from trainables.methods.no_bert.vectors import StaticVectors, vector_width
from trainables.methods.no_bert.word_embeddings import WordEmbeddings, frozen_table, kind_vectors, trained_table
from trainables.methods.no_bert.words import NUM_WORD_KINDS, SHORTEST_PIECE, WordRules, hash_task
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.initialisation import parameter_device
from trainables.task import Task

USES_BACKBONE = False
REFERENCES = ("vectors",)
KINDS = ("classification", "regression", "multilabel")

EMBEDDING_STD = 0.1


@dataclass(frozen=True, kw_only=True)
class Options:
    """The search space, by the paper's numbers where it has one.

    `buckets` and `wide_buckets` are the rows of the hashed tables; `longest_piece` the letters of the longest character
    n-gram (0: whole words only); `vectors` the path of static vectors.
    """

    vectors: str | None = None  # 1
    embedding_dim: int = 64  # 1
    buckets: int = 2**12
    longest_piece: int = 5
    tune_embeddings: bool = True  # 2
    lowercase: bool = True  # 3
    strip_punctuation: bool = False  # 4
    convolution: bool = True  # 5
    conv_activation: str = "relu"  # 6
    conv_batch_norm: bool = False  # 7
    max_ngram: int = 2  # 8
    conv_dropout: float = 0.2  # 9
    conv_filters: int = 100  # 10, of each width
    conv_embedding_dropout: float = 0.1  # 11
    hidden_layers: int = 1  # 12
    hidden_size: int = 128  # 13
    hidden_activation: str = "relu"  # 14
    hidden_norm: str = "none"  # 15
    hidden_dropout: float = 0.2  # 16
    deep_l2: float = 0.0  # 18
    wide_size: int = 8  # 0: no wide tower
    wide_buckets: int = 2**13
    wide_rate: float = 1.0  # 19, in learning rates of the deep tower
    wide_l2: float = 0.0  # 20

    def faults(self, shape: EncoderShape) -> list[str]:
        faults = [
            f"{name}: must be in [{low}, {high}], but got {getattr(self, name)}"
            for name, (low, high) in _RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        faults += [
            f"{name}: {unknown_name(name.replace('_', ' '), getattr(self, name), known)}"
            for name, known in _NAMES.items()
            if getattr(self, name) not in known
        ]
        if 0 < self.longest_piece < SHORTEST_PIECE:
            rule = f"must be 0 or at least {SHORTEST_PIECE}, the shortest n-gram"
            faults.append(f"longest_piece: {rule}, but got {self.longest_piece}")
        if self.vectors is not None:
            try:
                width = vector_width(_path(self.vectors))
            except FaultsError as error:
                return [*faults, *(f"vectors: {fault}" for fault in error.faults)]
            if self.embedding_dim != width:
                faults.append(f"embedding_dim: must be {width}, as the vectors are, but got {self.embedding_dim}")
        return faults


_RANGES = {
    "embedding_dim": (1, 1024),
    "buckets": (1, 2**24),
    "longest_piece": (0, 10),
    "max_ngram": (1, 5),
    "conv_dropout": (0, 0.9),
    "conv_filters": (1, 2048),
    "conv_embedding_dropout": (0, 0.9),
    "hidden_layers": (0, 10),
    "hidden_size": (1, 4096),
    "hidden_dropout": (0, 0.9),
    "deep_l2": (0, 1),
    "wide_size": (0, 1024),
    "wide_buckets": (1, 2**24),
    "wide_rate": (1e-4, 1e4),
    "wide_l2": (0, 1),
}
_NAMES = {"conv_activation": ACTIVATIONS, "hidden_activation": ACTIVATIONS, "hidden_norm": NORMS}


def tokenize(task: Task, options: Options, max_length: int) -> dict[str, TokenizedSplit]:
    """Every split of a task in hashed words."""
    rules = WordRules(
        lowercase=options.lowercase,
        strip_punctuation=options.strip_punctuation,
        longest_piece=options.longest_piece,
        max_words=max_length,
    )
    return hash_task(task, rules)


def references(options: Options) -> dict[str, tuple[Path, ...]]:
    """The file of static vectors, whose content decides a trial and not its place."""
    return {} if options.vectors is None else {"vectors": (_path(options.vectors),)}


def resolve(options: Options) -> Options:
    """With the place of the vectors whole, for engines elsewhere on the machine."""
    return options if options.vectors is None else replace(options, vectors=str(_path(options.vectors).absolute()))


def _path(vectors: str) -> Path:
    return Path(os.path.expanduser(vectors))  # which leaves the home of nobody as it is, for whoever reads it


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    device, each = parameter_device(view), options[0]  # trials of a pack have equal options
    view.compute_dtype = torch.float32  # the towers are small, and a bucket's gradient is a sum over many texts
    num_trials, width = len(options), each.embedding_dim
    table = None
    if each.tune_embeddings:
        # Beside static vectors, what is learned begins at zero.
        std = 0.0 if each.vectors else EMBEDDING_STD
        table = trained_table(each.buckets, width, std, generators, device)
    elif each.vectors is None:
        table = frozen_table(each.buckets, width, EMBEDDING_STD, device, view.compute_dtype)
    static = StaticVectors(_path(each.vectors), device, view.compute_dtype) if each.vectors is not None else None
    embeddings = WordEmbeddings(table, kind_vectors(width, num_trials, device), static)
    reader = _convolution(each, generators, device) if each.convolution else BagOfWords()
    hidden = []
    width = _read_width(each)
    for _ in range(each.hidden_layers):
        kind = (each.hidden_activation, each.hidden_norm, each.hidden_dropout)
        hidden.append(HiddenLayer(width, each.hidden_size, *kind, generators, device))
        width = each.hidden_size
    wide = None
    if each.wide_size:
        wide = WideTower(each.wide_buckets, each.wide_size, each.max_ngram, each.wide_rate, num_trials, device)
    body = DeepAndWide(embeddings, reader, hidden, wide, deep_l2=each.deep_l2, wide_l2=each.wide_l2)
    view.replace_body(body, width + each.wide_size)
    view.pooler = None
    view.shape = dataclasses.replace(view.shape, hidden_dropout=0.0)  # the backbone's, before the head, has no part


def _convolution(options: Options, generators: Sequence[torch.Generator], device: torch.device) -> Convolution:
    return Convolution(
        options.embedding_dim,
        options.conv_filters,
        options.max_ngram,
        options.conv_activation,
        generators,
        device,
        batch_norm=options.conv_batch_norm,
        embedding_dropout=options.conv_embedding_dropout,
        dropout=options.conv_dropout,
    )


def _read_width(options: Options) -> int:
    """The width of what the hidden layers read."""
    return options.max_ngram * options.conv_filters if options.convolution else options.embedding_dim


def trained_params(shape: EncoderShape, options: Options) -> int:
    """V E where embeddings are tuned and 3 E for the kinds of words; n (n + 1) / 2 E F + n F of a convolution over up
    to n words, and 2 n F where it is normalised; of each hidden layer in H + H, and 2 H where it is normalised; V' W of
    the wide tower."""
    width, filters, longest = options.embedding_dim, options.conv_filters, options.max_ngram
    total = NUM_WORD_KINDS * width
    if options.tune_embeddings:
        total += options.buckets * width
    if options.convolution:
        total += longest * (longest + 1) // 2 * width * filters + longest * filters
        total += 2 * longest * filters if options.conv_batch_norm else 0
    width = _read_width(options)
    for _ in range(options.hidden_layers):
        total += (width + 1) * options.hidden_size
        total += 2 * options.hidden_size if options.hidden_norm != "none" else 0
        width = options.hidden_size
    return total + options.wide_buckets * options.wide_size


def stack_key(options: Options) -> Hashable:
    return options  # almost all of them fix shapes or what is computed
