"""Relative positions: what attention adds to its scores by how far apart a query and a key are.

- A bias (MPNet, Song et al. 2020): a number for each head and each bucket of distances, the same in every layer.
- Disentangled attention (DeBERTa, He et al. 2021): each distance has an embedding, which every layer projects to a key
  K and a query Q. The score of a query at i and a key at j is
  (q_i . k_j + q_i . K(i - j) + k_j . Q(i - j)) / sqrt(3 V), or without one of the two parts and with 2 V.

The tables are embeddings: they are held, counted and trained with those.

Suffixes: K trials, S sequences, N rows, D width, H heads, V head width, G sequences of a group, Q queries, L length,
P rows of a table, X rows of words or sequences.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.nn.dropout import Dropout
from trainables.nn.encoder_shape import Disentangled, EncoderShape, RelativeBias
from trainables.nn.kernels.attention import Added
from trainables.nn.kernels.frozen_product import frozen_linear
from trainables.nn.kernels.philox import DropoutKeys, dropout
from trainables.nn.kernels.sequences import Sequences
from trainables.nn.layernorm import LayerNorm
from trainables.nn.linear import Linear
from trainables.nn.pieces import Pieces


@dataclass(frozen=True, kw_only=True, eq=False)
class Biases:
    """The biases of a batch."""

    table_PH: Tensor  # float32
    buckets: int
    max_distance: int
    _known: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    def of(self, length: int, *, is_first: bool) -> Tensor:
        """The biases (1, H, L, L) of sequences of a length, or those of the first query (1, H, 1, L)."""
        if (length, is_first) not in self._known:
            index_LL = _bias_index(length, self.buckets, self.max_distance, self.table_PH.device)
            biases_QLH = F.embedding(index_LL[:1] if is_first else index_LL, self.table_PH)
            self._known[length, is_first] = biases_QLH.permute(2, 0, 1)[None]
        return self._known[length, is_first]


@dataclass(frozen=True, kw_only=True, eq=False)
class Distances:
    """The embeddings of the distances that occur in a batch, those of trial after trial where trials have their own."""

    rows_ND: Tensor
    num_trials: int  # 1: all trials have the same
    first: int  # the table's row of the first
    design: Disentangled

    @property
    def per_trial(self) -> int:
        """P."""
        return len(self.rows_ND) // self.num_trials

    def index(self, length: int) -> Tensor:
        """Which of them stands for a query (row) and a key (column) of sequences of a length: int64 (L, L)."""
        return _distance_index(length, self.design, self.rows_ND.device) - self.first

    def for_each(self, num_trials: int) -> Distances:
        """The same, with rows of each trial's own."""
        if self.num_trials == num_trials:
            return self
        return Distances(
            rows_ND=self.rows_ND.repeat(num_trials, 1), num_trials=num_trials, first=self.first, design=self.design
        )


class BiasTable(nn.Module):
    """A number for each bucket of distances and each head."""

    def __init__(self, design: RelativeBias, num_heads: int) -> None:
        super().__init__()
        self.design = design
        self.weight = nn.Parameter(torch.zeros(design.num_rows, num_heads))

    def forward(self, pieces: Pieces, dtype: torch.dtype) -> Biases:
        return Biases(
            table_PH=self.weight.float(), buckets=self.design.num_buckets, max_distance=self.design.max_distance
        )


class DistanceTable(nn.Module):
    """An embedding of each distance, or bucket of distances, and their LayerNorm where there is one."""

    def __init__(self, design: Disentangled, width: int, eps: float) -> None:
        super().__init__()
        self.design = design
        self.weight = nn.Parameter(torch.zeros(2 * design.span, width))
        self.layernorm = LayerNorm(width, eps) if design.has_layernorm else None

    def forward(self, pieces: Pieces, dtype: torch.dtype) -> Distances:
        first, last = _reach(_padded(pieces.sequences), self.design)
        rows = Distances(rows_ND=self.weight[first : last + 1].to(dtype), num_trials=1, first=first, design=self.design)
        if self.layernorm is None:
            return rows
        if any(parameter.dim() == 2 for parameter in self.layernorm.parameters()):
            rows = rows.for_each(pieces.num_trials)
        normed_ND = self.layernorm(rows.rows_ND)
        return Distances(rows_ND=normed_ND, num_trials=rows.num_trials, first=first, design=self.design)


class BiasedScores(nn.Module):
    """What a layer adds to its scores where positions are biases: the batch's."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.scale = (shape.hidden_size // shape.num_heads) ** -0.5

    def forward(self, parts: tuple[Tensor, Tensor], qkv: nn.Module, pieces: Pieces, *, is_first: bool) -> Added:
        """To the scores of queries (N, D), or with `is_first` of each sequence's first one (S, D), and keys (N, D)."""
        assert isinstance(pieces.relative, Biases)
        biases = pieces.relative
        groups = tuple(biases.of(group.length, is_first=is_first) for group in pieces.sequences.groups)
        return Added(scale=self.scale, groups=groups)


class DisentangledScores(nn.Module):
    """What a layer adds to its scores where distances are embedded: their products with queries and keys."""

    def __init__(self, shape: EncoderShape, design: Disentangled) -> None:
        super().__init__()
        self.design, self.num_heads, width = design, shape.num_heads, shape.hidden_size
        self.scale = (width // shape.num_heads * design.num_parts) ** -0.5
        # Where they are shared, distances go through the layer's own projections of keys and queries.
        self.key = Linear(width, width) if design.has_projection("key") else None
        self.query = Linear(width, width) if design.has_projection("query") else None
        self.dropout = Dropout(shape.hidden_dropout)

    def forward(self, parts: tuple[Tensor, Tensor], qkv: nn.Module, pieces: Pieces, *, is_first: bool) -> Added:
        """To the scores of queries (N, D), or with `is_first` of each sequence's first one (S, D), and keys (N, D)."""
        assert isinstance(pieces.relative, Distances)
        query_XD, key_ND = parts
        distances = self._drop(pieces.relative, pieces.num_trials)
        keys_ND, queries_ND, num_trials = self._project(distances, qkv, pieces.num_trials)
        by_query_HXP = None if keys_ND is None else _products(query_XD, keys_ND, num_trials, self.num_heads)
        by_key_HNP = None if queries_ND is None else _products(key_ND, queries_ND, num_trials, self.num_heads)
        groups = []
        for group in pieces.sequences.groups:
            index_LL = distances.index(group.length)
            index_QL = index_LL[:1] if is_first else index_LL
            scores = None
            if by_query_HXP is not None:
                rows_GQ = group.sequences_G[:, None] if is_first else group.rows_GL
                scores = _pick(by_query_HXP, rows_GQ, index_QL)
            if by_key_HNP is not None:
                by_key_GHQL = _pick(by_key_HNP, group.rows_GL, index_QL.T).transpose(2, 3)
                scores = by_key_GHQL if scores is None else scores + by_key_GHQL
            assert scores is not None  # a design has one part at least
            groups.append(scores.float() * self.scale)
        return Added(scale=self.scale, groups=tuple(groups))

    def _drop(self, distances: Distances, num_trials: int) -> Distances:
        """With elements dropped as each trial draws them, by the row of the table, whoever trains beside it."""
        rates_K, keys = self.dropout.rates_K, self.dropout.keys
        if rates_K is None or keys is None:
            return distances
        distances = distances.for_each(num_trials)
        places_P = torch.arange(distances.per_trial, dtype=torch.int32, device=rates_K.device) + distances.first
        drawn_from = DropoutKeys(
            seeds_K=keys.of_rows.seeds_K,
            steps_K=keys.of_rows.steps_K,
            rates_K=rates_K,
            places_N=torch.zeros_like(places_P).repeat(num_trials),
            positions_N=places_P.repeat(num_trials),
        )
        dropped_ND = dropout(distances.rows_ND, drawn_from, self.dropout.site)
        return Distances(rows_ND=dropped_ND, num_trials=num_trials, first=distances.first, design=distances.design)

    def _project(
        self, distances: Distances, qkv: nn.Module, num_trials: int
    ) -> tuple[Tensor | None, Tensor | None, int]:
        """Keys and queries of the distances, and of how many trials they are; None where a part is left out."""
        design, own = self.design, [each for each in (self.key, self.query) if each is not None]
        projections = [qkv] if design.shares_projections else own
        if not all(isinstance(each, Linear) and each.is_plain for each in projections):
            distances = distances.for_each(num_trials)
        rows_ND, num_trials = distances.rows_ND, distances.num_trials
        if not design.shares_projections:
            key_ND, query_ND = (None if each is None else each(rows_ND) for each in (self.key, self.query))
            return key_ND, query_ND, num_trials
        width = rows_ND.shape[1]
        if isinstance(qkv, Linear) and qkv.is_plain:
            weight = qkv.weight[: 2 * width].to(rows_ND.dtype)
            bias = None if qkv.bias is None else qkv.bias[: 2 * width].to(rows_ND.dtype)
            linear = frozen_linear if qkv.is_frozen_in(rows_ND.dtype) else F.linear
            query_ND, key_ND = linear(rows_ND, weight, bias).split(width, dim=1)
        else:
            query_ND, key_ND, _ = qkv(rows_ND).split(width, dim=1)
        return (
            key_ND if design.content_to_position else None,
            query_ND if design.position_to_content else None,
            num_trials,
        )


def relative_table(shape: EncoderShape) -> BiasTable | DistanceTable | None:
    """The table of an encoder's relative positions; None where it has none."""
    if isinstance(shape.relative, RelativeBias):
        return BiasTable(shape.relative, shape.num_heads)
    if isinstance(shape.relative, Disentangled):
        return DistanceTable(shape.relative, shape.hidden_size, shape.layer_norm_eps)
    return None


def relative_scores(shape: EncoderShape) -> BiasedScores | DisentangledScores | None:
    """What a layer of an encoder adds to its scores; None where that is nothing."""
    if isinstance(shape.relative, RelativeBias):
        return BiasedScores(shape)
    if isinstance(shape.relative, Disentangled):
        return DisentangledScores(shape, shape.relative)
    return None


def _products(rows_XD: Tensor, table_ND: Tensor, num_trials: int, num_heads: int) -> Tensor:
    """The products (H, X, P) of each row's heads with those of a table (K * P, D), or of its own trial's part of it."""
    rows_KHXV = rows_XD.reshape(num_trials, -1, num_heads, rows_XD.shape[1] // num_heads).transpose(1, 2)
    table_KHVP = table_ND.reshape(num_trials, -1, num_heads, rows_KHXV.shape[3]).permute(0, 2, 3, 1)
    return (rows_KHXV @ table_KHVP).transpose(0, 1).flatten(1, 2)


def _pick(products_HXP: Tensor, rows_GX: Tensor, index_XY: Tensor) -> Tensor:
    """Of each sequence's rows the products that an index names: (G, H, X, Y)."""
    size, length = rows_GX.shape
    products_HGXP = products_HXP.index_select(1, rows_GX.flatten()).unflatten(1, (size, length))
    index = index_XY.expand(*products_HGXP.shape[:2], *index_XY.shape)
    return products_HGXP.gather(3, index).transpose(0, 1)


def _padded(sequences: Sequences) -> int:
    """A length that no group of sequences exceeds."""
    return max(8, -(-sequences.longest // 8) * 8)


# Kept for good: recorded steps on a GPU read them where they lie.
@functools.cache
@torch.inference_mode(False)  # whoever asks first may be an evaluation, and then a training
def _bias_index(length: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """The bucket of a query (row) and a key (column): int64 (L, L)."""
    places_L = torch.arange(length)
    after_LL = places_L[None] - places_L[:, None]
    # Half of the buckets for keys before a query, half for those behind it; half of each for a distance each, the
    # others on a logarithmic scale.
    half, exact = num_buckets // 2, num_buckets // 4
    far_LL = after_LL.abs()
    scaled_LL = torch.log(far_LL.float() / exact) / math.log(max_distance / exact) * (half - exact)
    large_LL = (exact + scaled_LL.clamp_min(0).long()).clamp_max(half - 1)
    bucket_LL = torch.where(far_LL < exact, far_LL, large_LL) + half * (after_LL > 0)
    return bucket_LL.to(device)


@functools.cache
@torch.inference_mode(False)
def _distance_index(length: int, design: Disentangled, device: torch.device) -> Tensor:
    """The table's row of a query (row) and a key (column): int64 (L, L)."""
    places_L = torch.arange(length)
    distances_LL = places_L[:, None] - places_L[None]
    return _distance_rows(distances_LL, design).to(device)


@functools.cache
def _reach(length: int, design: Disentangled) -> tuple[int, int]:
    """The first and the last row of the table that sequences of a length meet."""
    first, last = _distance_rows(torch.tensor([1 - length, length - 1]), design).tolist()
    return first, last


def _distance_rows(distances: Tensor, design: Disentangled) -> Tensor:
    """The table's row of each distance.

    With buckets, distances beyond half the span share rows, the more the farther they are.
    """
    if design.max_distance:
        middle = design.span // 2
        far = distances.abs().clamp_min(max(1, middle - 1))
        limit = torch.log(torch.tensor((design.max_distance - 1) / middle))
        bucket = torch.ceil(torch.log(far / middle) / limit * (middle - 1)) + middle
        distances = torch.where(far <= middle, distances, (bucket * distances.sign()).long())
    return (distances + design.span).clamp(0, 2 * design.span - 1)
