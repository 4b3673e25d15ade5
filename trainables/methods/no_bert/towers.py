"""Networks over hashed words: a deep tower over embeddings, and a wide one over word n-grams.

Every trained tensor has a leading trial axis.

Suffixes: K trials, B texts a trial, S = K*B, L ids of a row, T words of all rows, W words of the longest row,
E embedding width, F filters of one width, H hidden width, X any width of features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.methods.no_bert.word_embeddings import WordEmbeddings, Words, sum_by_row, trial_of
from trainables.nn.batchnorm import BatchNorm
from trainables.nn.dropout import Dropout
from trainables.nn.initialisation import zeros
from trainables.nn.layernorm import LayerNorm
from trainables.nn.pieces import Pieces
from trainables.nn.stacked_linear import StackedLinear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "swish": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
NORMS = ("none", "batch", "layer")


class BagOfWords(nn.Module):
    """The sum of a text's word vectors over the square root of their number, as the paper's modules combine them."""

    def forward(self, vectors_TE: Tensor, words: Words) -> Tensor:
        total_SE = sum_by_row(vectors_TE, words.rows, words.num_rows)
        return total_SE * words.counts[:, None].to(vectors_TE.dtype).rsqrt()


class Convolution(nn.Module):
    """Filters over windows of 1 to `max_ngram` words, each pooled by its maximum over the text (Kim 2014).

    Then come normalisation and activation: of what was pooled, which is as good where the activation rises throughout
    (all but swish), costs a fraction, and no padding reaches it. Dropout of embeddings leaves out a channel of the
    whole text, so that what a trial draws does not depend on its pack's padding.
    """

    def __init__(
        self,
        width: int,
        num_filters: int,
        max_ngram: int,
        activation: str,
        generators: Sequence[torch.Generator],
        device: torch.device,
        *,
        batch_norm: bool,
        embedding_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.filters = nn.ModuleList(
            StackedLinear(length * width, num_filters, (length * width) ** -0.5, generators, device)
            for length in range(1, max_ngram + 1)
        )
        self.activation = ACTIVATIONS[activation]
        total = max_ngram * num_filters
        self.norm = BatchNorm(len(generators), total, device) if batch_norm else None
        self.embedding_dropout = Dropout(embedding_dropout, is_fixed=True)
        self.dropout = Dropout(dropout, is_fixed=True)

    def forward(self, vectors_TE: Tensor, words: Words) -> Tensor:
        counts_S = words.counts
        firsts_S = counts_S.cumsum(0) - counts_S
        places_T = torch.arange(len(words.rows), device=vectors_TE.device) - firsts_S[words.rows]
        longest, width = int(counts_S.max()), vectors_TE.shape[1]
        # Room for the widest window at the last word; places without a word are zero.
        padded_SWE = vectors_TE.new_zeros(words.num_rows, longest + len(self.filters) - 1, width)
        padded_SWE = padded_SWE.index_put((words.rows, places_T), vectors_TE)
        if self.embedding_dropout.rates_K is not None:
            kept_SE = self.embedding_dropout(torch.ones_like(padded_SWE[:, 0]))
            padded_SWE = padded_SWE * kept_SE[:, None]
        is_past_SW1 = (torch.arange(longest, device=vectors_TE.device) >= counts_S[:, None])[..., None]
        pooled = []
        for length, filters in enumerate(self.filters, start=1):
            windows_SWX = torch.cat([padded_SWE[:, place : place + longest] for place in range(length)], dim=2)
            responses_SWF = filters(windows_SWX).masked_fill(is_past_SW1, -torch.inf)
            pooled.append(responses_SWF.max(dim=1).values)
        features_SX = torch.cat(pooled, dim=1)
        if self.norm is not None:
            num_trials = self.norm.weight.shape[0]
            features_SX = self.norm(features_SX.view(num_trials, -1, features_SX.shape[1])).view_as(features_SX)
        return self.dropout(self.activation(features_SX))


class HiddenLayer(nn.Module):
    """A dense layer: product, normalisation, activation, dropout."""

    def __init__(
        self,
        width_in: int,
        width: int,
        activation: str,
        norm: str,
        dropout: float,
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        super().__init__()
        self.dense = StackedLinear(width_in, width, width_in**-0.5, generators, device)
        self.norm: nn.Module | None = None
        if norm == "batch":
            self.norm = BatchNorm(len(generators), width, device)
        elif norm == "layer":
            self.norm = LayerNorm.stacked(len(generators), width, device)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout, is_fixed=True)

    def forward(self, features_SX: Tensor) -> Tensor:
        hidden_SH = self.dense(features_SX)
        if isinstance(self.norm, BatchNorm):
            num_trials = self.dense.weight.shape[0]
            hidden_SH = self.norm(hidden_SH.view(num_trials, -1, hidden_SH.shape[1])).view_as(hidden_SH)
        elif self.norm is not None:
            hidden_SH = self.norm(hidden_SH)
        return self.dropout(self.activation(hidden_SH))


class WideTower(nn.Module):
    """A linear map of the word n-grams of a text, hashed: the sum of their rows over the square root of their number.

    Its rows are `scale` times what is trained. AdamW's steps are as long whatever the scale of a gradient, so this is
    a learning rate of `scale` times the trial's. They begin at zero, and weight decay leaves the ratio alone.
    """

    def __init__(
        self, buckets: int, width: int, max_ngram: int, scale: float, num_trials: int, device: torch.device
    ) -> None:
        super().__init__()
        self.max_ngram = max_ngram
        self.scale = scale
        self.table = zeros(num_trials, (buckets, width), device)

    def forward(self, words: Words) -> Tensor:
        num_trials, num_buckets, width = self.table.shape
        hashes, rows = words.ngrams(self.max_ngram)
        buckets = hashes % num_buckets
        if num_trials > 1:
            buckets = buckets + trial_of(rows, words.num_rows, num_trials) * num_buckets
        found = F.embedding(buckets, self.table.float().reshape(-1, width))
        total_SX = sum_by_row(found, rows, words.num_rows)
        counts_S = torch.bincount(rows, minlength=words.num_rows)
        return total_SX * (self.scale * counts_S[:, None].to(found.dtype).rsqrt())


class DeepAndWide(nn.Module):
    """Features of texts (S, D): what the last layer of the deep tower gives, then the wide tower's.

    `penalty()` is L2 on the deep tower's products, convolution included, and on the wide tower's rows.
    """

    def __init__(
        self,
        embeddings: WordEmbeddings,
        reader: BagOfWords | Convolution,
        hidden: Sequence[HiddenLayer],
        wide: WideTower | None,
        *,
        deep_l2: float,
        wide_l2: float,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.reader = reader
        self.hidden = nn.ModuleList(hidden)
        self.wide = wide
        self.deep_l2, self.wide_l2 = deep_l2, wide_l2

    def forward(self, pieces: Pieces) -> Tensor:
        words = Words.of(pieces)
        features_SX = self.reader(self.embeddings(words), words)
        for layer in self.hidden:
            features_SX = layer(features_SX)
        return features_SX if self.wide is None else torch.cat([features_SX, self.wide(words)], dim=1)

    def penalty(self) -> Tensor:
        """Each trial's (K,)."""
        total_K = self.embeddings.kinds.new_zeros(self.embeddings.kinds.shape[0])
        if self.deep_l2:
            products = [module.weight for module in self.modules() if isinstance(module, StackedLinear)]
            for weight in products:
                total_K = total_K + self.deep_l2 * weight.float().square().flatten(1).sum(dim=1)
        if self.wide is not None and self.wide_l2:
            table = self.wide.table.float() * self.wide.scale
            total_K = total_K + self.wide_l2 * table.square().flatten(1).sum(dim=1)
        return total_K
