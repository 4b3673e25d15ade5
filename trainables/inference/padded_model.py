"""A trained model over padded texts, in plain products whose sizes an exporter can leave open.

The model's own modules work on word pieces laid end to end, by kernels that a graph cannot hold. Padded texts are such
rows too, the padding's among them, as long as nobody looks across texts: so everything that works row by row stays as
it is, and what looks across (attention, distances, what the head reads) is replaced. The weights are shared.

Suffixes: S sequences, L length, N = S*L rows, D width, E = 3D, H heads, V head width, P rows of a table, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.inference.predictor import Predictor
from trainables.nn.kernels.attention import Added
from trainables.nn.kernels.sequences import Group, Sequences
from trainables.nn.layernorm import LayerNorm
from trainables.nn.layers import SelfAttention
from trainables.nn.pieces import Pieces
from trainables.nn.relative import Biases, BiasTable, Distances, DistanceTable
from trainables.nn.structure import copy_structure
from trainables.training.model import AdaptedModel


class PaddedModel(nn.Module):
    """The logits of padded texts, padded on the right, as a tokenizer of transformers gives them.

    Args:
        predictor: the trained model; it is not changed. One whose method reads a backbone.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.longest = predictor.backbone.info.shape.max_length
        self.model: AdaptedModel = _replaced(copy_structure(predictor.model), self.longest)
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                # As though it were trained: what is frozen would be computed in blocks of a number of rows.
                if parameter is not None and parameter.is_floating_point():
                    module._parameters[name] = nn.Parameter(parameter.detach(), requires_grad=True)
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Logits (S, C) of int64 inputs (S, L), or (S, L, C) where answers are places in a text."""
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        logits: Tensor = self.model(_padded_pieces(input_ids, attention_mask, types, self.longest))
        return logits


class PaddedSequences(Sequences):
    """Where padded texts lie: each begins a row of L."""

    def __init__(self, mask_SL: Tensor, longest: int) -> None:
        size, length = mask_SL.shape
        self.num_trials, self.num_rows, self.device = 1, size * length, mask_SL.device
        self.longest = longest  # of any text, so that no table is cut by the length of a batch
        self.is_piece_SL = mask_SL > 0
        self.starts_S = torch.arange(size, device=self.device) * length
        self.lengths_S = mask_SL.sum(dim=1)

    def _make_groups(self) -> tuple[Group, ...]:
        size, length = self.is_piece_SL.shape
        rows_SL = self.starts_S[:, None] + torch.arange(length, device=self.device)
        members_S = torch.arange(size, device=self.device)
        return (
            Group(
                length=length,
                sequences_G=members_S,
                trials_G=torch.zeros_like(members_S),
                places_G=members_S,
                rows_GL=rows_SL,
                targets_GL=rows_SL,
                padding_GL=~self.is_piece_SL,
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PaddedPieces(Pieces):
    """Padded texts as a batch of rows, of which none is a dummy."""

    is_piece_SL: Tensor

    @property
    def num_sequences(self) -> int:
        return self.is_piece_SL.shape[0]  # an open size, which the length of an object cannot be

    def pad(self, rows_NX: Tensor, value: float = 0.0) -> Tensor:
        padded_SLX = rows_NX.view(*self.is_piece_SL.shape, rows_NX.shape[1])
        return padded_SLX.masked_fill(~self.is_piece_SL[..., None], value)

    def unpad(self, padded_SLX: Tensor) -> Tensor:
        return padded_SLX.flatten(0, 1)

    def first(self, hidden_ND: Tensor) -> Tensor:
        return hidden_ND.view(*self.is_piece_SL.shape, hidden_ND.shape[1])[:, 0]

    def mean(self, hidden_ND: Tensor) -> Tensor:
        total_SD = self.pad(hidden_ND.float()).sum(dim=1)
        return (total_SD / self.is_piece_SL.sum(dim=1, keepdim=True)).to(hidden_ND.dtype)


class PaddedAttention(nn.Module):
    """`SelfAttention` over padded texts."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.num_heads, self.window = attention.num_heads, attention.window

    def is_local(self, pieces: PaddedPieces) -> bool:
        """Whether a word piece may not see all others, whatever the length."""
        return self.window > 0

    def forward(self, qkv_NE: Tensor, pieces: PaddedPieces, added: Added | None = None) -> Tensor:
        """(N, D) of (N, 3D)."""
        query, key, value = (self._heads(each, pieces) for each in qkv_NE.chunk(3, dim=1))
        return self._attend(query, key, value, pieces, added)

    def first(
        self, query_SD: Tensor, key_ND: Tensor, value_ND: Tensor, pieces: PaddedPieces, added: Added | None = None
    ) -> Tensor:
        """What each text's first word piece attends to (S, D)."""
        query = query_SD.view(query_SD.shape[0], 1, self.num_heads, -1).transpose(1, 2)
        key, value = self._heads(key_ND, pieces), self._heads(value_ND, pieces)
        return self._attend(query, key, value, pieces, added)

    def _heads(self, rows_ND: Tensor, pieces: PaddedPieces) -> Tensor:
        """(S, H, L, V)."""
        width = rows_ND.shape[1] // self.num_heads
        return rows_ND.view(*pieces.is_piece_SL.shape, self.num_heads, width).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, pieces: PaddedPieces, added: Added | None) -> Tensor:
        scale = query.shape[3] ** -0.5 if added is None else added.scale
        scores = (query @ key.transpose(2, 3)) * scale
        if added is not None:
            scores = scores + added.groups[0]
        is_seen = pieces.is_piece_SL[:, None, None]
        if self.window:
            places_L = torch.arange(key.shape[2], device=key.device)
            is_seen = is_seen & ((places_L[:, None] - places_L).abs() <= self.window)
        # Finite, so that padding, which may see nothing, gives numbers.
        weights = scores.masked_fill(~is_seen, torch.finfo(scores.dtype).min).softmax(dim=-1)
        return (weights @ value).transpose(1, 2).reshape(-1, query.shape[1] * query.shape[3])


class PlainLayerNorm(nn.Module):
    """`LayerNorm` of one trial as torch's own."""

    def __init__(self, layernorm: LayerNorm) -> None:
        super().__init__()
        self.eps = layernorm.eps
        self.weight = nn.Parameter(layernorm.weight.detach().flatten())
        self.bias = None if layernorm.bias is None else nn.Parameter(layernorm.bias.detach().flatten())

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor | None = None) -> Tensor:
        """LN(hidden + residual)."""
        total_ND = hidden_ND if residual_ND is None else hidden_ND + residual_ND
        return F.layer_norm(total_ND, self.weight.shape, self.weight, self.bias, self.eps)

    def after_dropout(self, hidden_ND: Tensor, residual_ND: Tensor, dropout: nn.Module) -> Tensor:
        """LN(hidden + residual): nothing is dropped here."""
        return self(hidden_ND, residual_ND)


class PaddedBiases(nn.Module):
    """`BiasTable` with a bias for every distance that any text has, so that no table is made for a length."""

    by_distance_HP: Tensor  # of a key's place less a query's, from 1 - longest to longest - 1

    def __init__(self, table: BiasTable, longest: int) -> None:
        super().__init__()
        self.design = table.design
        made = Biases(
            table_PH=table.weight.detach().float(),
            buckets=table.design.num_buckets,
            max_distance=table.design.max_distance,
        )
        biases_HLL = made.of(longest, is_first=False)[0]
        by_distance_HP = torch.cat([biases_HLL[:, -1, :-1], biases_HLL[:, 0]], dim=1)
        self.register_buffer("by_distance_HP", by_distance_HP.contiguous(), persistent=False)

    def forward(self, pieces: Pieces, dtype: torch.dtype) -> Biases:
        return _BiasesByDistance(
            table_PH=self.by_distance_HP.T, buckets=self.design.num_buckets, max_distance=self.design.max_distance
        )


class _BiasesByDistance(Biases):
    """Biases whose table is one by distance."""

    def of(self, length: int, *, is_first: bool) -> Tensor:
        places = _distances(length, len(self.table_PH), self.table_PH.device, is_first=is_first)
        return F.embedding(places, self.table_PH).permute(2, 0, 1)[None]


class PaddedDistances(nn.Module):
    """`DistanceTable`, whose rows are found by distance, so that no index is made for a length."""

    index_P: Tensor  # of a key's place less a query's, from 1 - longest to longest - 1

    def __init__(self, table: DistanceTable, longest: int) -> None:
        super().__init__()
        self.table = table
        # Of the rows that the table gives where texts may be as long as that: `Distances.first` is taken off there.
        index_LL = Distances(rows_ND=table.weight, num_trials=1, first=0, design=table.design).index(longest)
        index_P = torch.cat([index_LL[-1, :-1], index_LL[0]])
        self.register_buffer("index_P", index_P, persistent=False)

    def forward(self, pieces: Pieces, dtype: torch.dtype) -> Distances:
        found = self.table(pieces, dtype)
        return _DistancesByDistance(
            rows_ND=found.rows_ND, num_trials=1, first=found.first, design=found.design, index_P=self.index_P
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _DistancesByDistance(Distances):
    """Embeddings of distances with the row of each in a table."""

    index_P: Tensor

    def index(self, length: int) -> Tensor:
        places_LL = _distances(length, len(self.index_P), self.index_P.device, is_first=False)
        return self.index_P[places_LL] - self.first


def _distances(length: int, table: int, device: torch.device, *, is_first: bool) -> Tensor:
    """The place in a table by distance of each query (row), or of the first alone, and key (column)."""
    places_L = torch.arange(length, device=device)
    queries_Q = places_L[:1] if is_first else places_L
    return places_L - queries_Q[:, None] + table // 2


def _replaced(model: AdaptedModel, longest: int) -> AdaptedModel:
    """A copy of a model's structure with everything replaced that looks across texts, or is a kernel."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            plain: nn.Module | None = None
            if isinstance(child, LayerNorm):
                plain = PlainLayerNorm(child)
            elif isinstance(child, SelfAttention):
                plain = PaddedAttention(child)
            elif isinstance(child, BiasTable):
                plain = PaddedBiases(child, longest)
            elif isinstance(child, DistanceTable):
                plain = PaddedDistances(child, longest)
            if plain is not None:
                module._modules[name] = plain
    return model


def _padded_pieces(input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, longest: int) -> PaddedPieces:
    size, length = input_ids.shape
    sequences = PaddedSequences(attention_mask, longest)
    members_SL = torch.arange(size, device=input_ids.device)[:, None].expand(size, length)
    places_SL = torch.arange(length, device=input_ids.device).expand(size, length)
    return PaddedPieces(
        input_ids_N=input_ids.flatten(),
        token_types_N=token_type_ids.flatten(),
        positions_N=places_SL.flatten(),
        owners_N=members_SL.flatten(),
        sequences=sequences,
        num_trials=1,
        num_dummies=0,
        is_piece_SL=sequences.is_piece_SL,
    )
