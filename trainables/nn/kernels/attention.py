"""Self-attention of sequences laid end to end, forwards and backwards, with keyed dropout of its probabilities.

In torch, sequences of similar lengths are gathered into groups, a handful a batch; in C and in Triton each is worked on
where it lies. Products are in the dtype of the rows, the softmax is float32.

Suffixes: N rows, D width, S sequences, G sequences of a group, H heads, V head width, L length of a group.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from trainables.nn.kernels import native, triton
from trainables.nn.kernels.philox import DropoutKeys, attention_mask, native_keys
from trainables.nn.kernels.sequences import Group, Sequences


@dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """What is added to scores before the softmax, a tensor for each group of a batch's sequences.

    Each is float32, (G, H, Q, L) or the same for all sequences (1, H, Q, L), and gets a gradient where it asks for one.
    """

    scale: float  # of Q K^T in place of 1 / sqrt(V)
    groups: tuple[Tensor, ...]


def attend(
    qkv_N3D: Tensor,
    num_heads: int,
    sequences: Sequences,
    keys: DropoutKeys | None,
    site: int,
    rates_K: Tensor | None = None,
    added: Added | None = None,
) -> Tensor:
    """softmax(Q K^T / sqrt(V)) V of each sequence over projected queries, keys and values (N, 3D); gives (N, D).

    Rows that belong to no sequence give zeros. Where `keys` is None nothing is dropped; `rates_K`
    stand for the keys' own. With something added to the scores, they are computed group by group on every device.
    """
    if added is not None:
        given = num_heads, sequences, Masks.of(keys, site, rates_K), added.scale, *added.groups
        weighed: Tensor = _Attention.apply(qkv_N3D, *given)
        return weighed
    attention: type[Function] = _Attention if native.library_for(qkv_N3D) is None else _NativeAttention
    if triton.serves(qkv_N3D):
        from trainables.nn.kernels.triton import attention as in_triton

        attention = in_triton.Attention
    attended: Tensor = attention.apply(qkv_N3D, num_heads, sequences, Masks.of(keys, site, rates_K))
    return attended


def attend_first(
    query_SD: Tensor,
    key_ND: Tensor,
    value_ND: Tensor,
    num_heads: int,
    sequences: Sequences,
    keys: DropoutKeys | None,
    site: int,
    rates_K: Tensor | None = None,
    added: Added | None = None,
) -> Tensor:
    """Attention of each sequence's first token alone, with the masks it has in `attend`; gives (S, D).

    Sequences without rows give zeros.
    """
    masks = Masks.of(keys, site, rates_K)
    if added is not None:
        given = num_heads, sequences, masks, added.scale, *added.groups
        weighed: Tensor = _FirstAttention.apply(query_SD, key_ND, value_ND, *given)
        return weighed
    attention: type[Function] = _FirstAttention if native.library_for(query_SD) is None else _NativeFirstAttention
    if triton.serves(query_SD):
        from trainables.nn.kernels.triton import attention as in_triton

        attention = in_triton.FirstAttention
    attended: Tensor = attention.apply(query_SD, key_ND, value_ND, num_heads, sequences, masks)
    return attended


class Masks:
    """What the masks of a site are drawn from."""

    def __init__(self, keys: DropoutKeys, site: int, rates_K: Tensor) -> None:
        self.keys, self.site, self.rates_K = keys, site, rates_K

    @staticmethod
    def of(keys: DropoutKeys | None, site: int, rates_K: Tensor | None) -> Masks | None:
        if keys is None:
            return None
        return Masks(keys, site, keys.rates_K if rates_K is None else rates_K)

    def draw(self, group: Group, num_heads: int, queries: int | None = None) -> Tensor:
        """Factors (G, H, Q, L), float32."""
        padded = group.trials_G, group.places_G, num_heads, group.length
        return attention_mask(self.keys, *padded, self.site, torch.float32, queries=queries, rates_K=self.rates_K)


class _Attention(Function):
    """Keeps each group's gathered heads and probabilities, with and without dropout."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv_N3D: Tensor,
        num_heads: int,
        sequences: Sequences,
        masks: Masks | None,
        scale: float | None = None,
        *added: Tensor,
    ) -> Tensor:
        rows, width = qkv_N3D.shape[0], qkv_N3D.shape[1] // 3
        ctx.scale = (width // num_heads) ** -0.5 if scale is None else scale
        out_D = qkv_N3D.new_zeros(rows + 1, width)  # one more row takes what comes of padding
        kept: list[Tensor] = []
        for group, more in zip_longest(sequences.groups, added):
            heads = _gather(qkv_N3D, group.rows_GL, 3, num_heads)
            query, key, value = heads  # each (G, H, L, V)
            probabilities = _softmax((query @ key.transpose(2, 3)).float(), group, ctx.scale, more)
            dropped = probabilities if masks is None else probabilities * masks.draw(group, num_heads)
            dropped = dropped.to(qkv_N3D.dtype)
            probabilities = dropped if masks is None else probabilities.to(qkv_N3D.dtype)
            _scatter(out_D, group.targets_GL, (dropped @ value)[None])
            kept += [heads, probabilities, dropped]
        ctx.save_for_backward(*kept)
        ctx.sequences, ctx.added = sequences, [len(more) for more in added]
        return out_D[:rows]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, width = grads[0].shape
        grad_qkv = grads[0].new_zeros(rows + 1, 3 * width)
        grad_added: list[Tensor | None] = []
        for group, (heads, probabilities, dropped) in _by_group(ctx):
            query, key, value = heads
            grad_heads = torch.empty_like(heads)
            (grad_context,) = _gather(grads[0], group.rows_GL, 1, heads.shape[2])
            grad_context.masked_fill_(group.padding_GL[:, None, :, None], 0)
            torch.matmul(dropped.transpose(2, 3), grad_context, out=grad_heads[2])
            grad = _grad_softmax(grad_context @ value.transpose(2, 3), probabilities, dropped)
            grad_added.append(_grad_added(ctx, len(grad_added), grad))
            grad_scores = grad.mul_(ctx.scale).to(key.dtype)
            torch.matmul(grad_scores, key, out=grad_heads[0])
            torch.matmul(grad_scores.transpose(2, 3), query, out=grad_heads[1])
            _scatter(grad_qkv, group.targets_GL, grad_heads)
        return _gradients(ctx, [grad_qkv[:rows]], grad_added)


class _FirstAttention(Function):
    """The same with one query a sequence."""

    @staticmethod
    def forward(
        ctx: Any,
        query_SD: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        num_heads: int,
        sequences: Sequences,
        masks: Masks | None,
        scale: float | None = None,
        *added: Tensor,
    ) -> Tensor:
        ctx.scale = (query_SD.shape[1] // num_heads) ** -0.5 if scale is None else scale
        out_SD = torch.zeros_like(query_SD, memory_format=torch.contiguous_format)
        kept: list[Tensor] = []
        for group, more in zip_longest(sequences.groups, added):
            query = query_SD[group.sequences_G].unflatten(1, (num_heads, 1, -1))  # (G, H, 1, V)
            (key,), (value,) = (_gather(each, group.rows_GL, 1, num_heads) for each in (key_ND, value_ND))
            probabilities = _softmax((query @ key.transpose(2, 3)).float(), group, ctx.scale, more)
            dropped = probabilities if masks is None else probabilities * masks.draw(group, num_heads, queries=1)
            dropped, probabilities = dropped.to(query.dtype), probabilities.to(query.dtype)
            out_SD.index_copy_(0, group.sequences_G, (dropped @ value).flatten(1))
            kept += [query, key, value, probabilities, dropped]
        ctx.save_for_backward(*kept)
        ctx.sequences, ctx.num_rows = sequences, key_ND.shape[0]
        ctx.added = [len(more) for more in added]
        return out_SD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        width = grads[0].shape[1]
        grad_query = torch.zeros_like(grads[0], memory_format=torch.contiguous_format)
        grad_key, grad_value = (grads[0].new_zeros(ctx.num_rows + 1, width) for _ in range(2))
        grad_added: list[Tensor | None] = []
        for group, (query, key, value, probabilities, dropped) in _by_group(ctx):
            grad_context = grads[0][group.sequences_G].view_as(query)
            grad = _grad_softmax(grad_context @ value.transpose(2, 3), probabilities, dropped)
            grad_added.append(_grad_added(ctx, len(grad_added), grad))
            grad_scores = grad.mul_(ctx.scale).to(key.dtype)
            grad_query.index_copy_(0, group.sequences_G, (grad_scores @ key).flatten(1))
            # With one query these products are of a column and a row.
            _scatter(grad_key, group.targets_GL, (grad_scores.transpose(2, 3) * query)[None])
            _scatter(grad_value, group.targets_GL, (dropped.transpose(2, 3) * grad_context)[None])
        return _gradients(ctx, [grad_query, grad_key[:-1], grad_value[:-1]], grad_added)


class _NativeAttention(Function):
    """In C; keeps each row's largest score and the sum of its powers."""

    @staticmethod
    def forward(ctx: Any, qkv_N3D: Tensor, num_heads: int, sequences: Sequences, masks: Masks | None) -> Tensor:
        qkv_N3D = qkv_N3D.contiguous()
        out_ND = qkv_N3D.new_empty(len(qkv_N3D), qkv_N3D.shape[1] // 3)
        statistics = torch.empty(2, num_heads, len(qkv_N3D))
        _call_native("attention_forward", qkv_N3D.chunk(3, dim=1), statistics, sequences, masks, [out_ND])
        ctx.save_for_backward(qkv_N3D, statistics)
        ctx.sequences, ctx.masks = sequences, masks
        return out_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        qkv_N3D, statistics = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv_N3D)
        tensors = [grads[0].contiguous(), *grad_qkv.chunk(3, dim=1)]
        _call_native("attention_backward", qkv_N3D.chunk(3, dim=1), statistics, ctx.sequences, ctx.masks, tensors)
        return grad_qkv, None, None, None


class _NativeFirstAttention(Function):
    """The same with one query a sequence."""

    @staticmethod
    def forward(
        ctx: Any,
        query_SD: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        num_heads: int,
        sequences: Sequences,
        masks: Masks | None,
    ) -> Tensor:
        parts = [part if part.stride(1) == 1 else part.contiguous() for part in (query_SD, key_ND, value_ND)]
        out_SD = torch.empty_like(query_SD, memory_format=torch.contiguous_format)
        statistics = torch.empty(2, num_heads, len(query_SD))
        _call_native("attention_forward", parts, statistics, sequences, masks, [out_SD], is_first=True)
        ctx.save_for_backward(*parts, statistics)
        ctx.sequences, ctx.masks = sequences, masks
        return out_SD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *parts, statistics = ctx.saved_tensors
        gradients = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts]
        tensors = [grads[0].contiguous(), *gradients]
        _call_native("attention_backward", parts, statistics, ctx.sequences, ctx.masks, tensors, is_first=True)
        return *gradients, None, None, None


def _call_native(
    name: str,
    parts: Sequence[Tensor],
    statistics: Tensor,
    sequences: Sequences,
    masks: Masks | None,
    tensors: Sequence[Tensor],
    *,
    is_first: bool = False,
) -> None:
    """Call a kernel of attention.c on queries, keys and values, and on what it reads or writes beside these."""
    library = native.library_for(parts[0])
    assert library is not None
    drawn_from = None if masks is None else native_keys(masks.keys, masks.site, masks.rates_K)
    num_heads = statistics.shape[1]
    call = native.Attention(
        parts[0].dtype is torch.bfloat16,
        is_first,
        len(sequences),
        sequences.num_trials,
        num_heads,
        parts[0].shape[1] // num_heads,
        sequences.longest,
        statistics.shape[2],
        len(parts[1]),
        *native.addresses(sequences.starts_S, sequences.lengths_S, *parts),
        *(part.stride(0) for part in parts),
        *native.addresses(*statistics),
        None if drawn_from is None else ctypes.pointer(drawn_from),
    )
    steps = [] if len(tensors) == 1 else [tensors[1].stride(0), tensors[2].stride(0)]
    native.check(getattr(library, name)(call, *native.addresses(*tensors), *steps))


def _by_group(ctx: Any) -> Iterator[tuple[Group, tuple[Tensor, ...]]]:
    """Each group with the tensors that were kept of it."""
    groups = ctx.sequences.groups
    each = len(ctx.saved_tensors) // max(1, len(groups))
    for index, group in enumerate(groups):
        yield group, ctx.saved_tensors[index * each : (index + 1) * each]


def _gather(rows: Tensor, rows_GL: Tensor, parts: int, num_heads: int) -> Tensor:
    """The heads (parts, G, H, L, V) of rows (N, parts * H * V)."""
    heads = rows.reshape(len(rows), parts, num_heads, -1)[rows_GL]
    return heads.permute(2, 0, 3, 1, 4).contiguous()


def _scatter(out: Tensor, targets_GL: Tensor, heads: Tensor) -> None:
    """Write heads (parts, G, H, L, V) to rows (N + 1, parts * H * V)."""
    out.index_copy_(0, targets_GL.flatten(), heads.permute(1, 3, 0, 2, 4).reshape(targets_GL.numel(), -1))


def _softmax(scores_GHQL: Tensor, group: Group, scale: float, added: Tensor | None) -> Tensor:
    """Probabilities in float32, from products that may be overwritten, scaled and added to; 0 for padding.

    torch's own CPU kernel works row by row and takes ten times as long where rows are shorter than a vector register.
    The shift by the largest score is only for the range of float32, so there it is left out unless a row leaves it.
    """
    scores_GHQL = scores_GHQL.mul_(scale)
    if added is not None:
        scores_GHQL.add_(added)
    scores_GHQL.masked_fill_(group.padding_GL[:, None, None], float("-inf"))
    if scores_GHQL.device.type != "cpu":
        return scores_GHQL.softmax(dim=-1)
    powers = scores_GHQL.exp()
    sums = powers.sum(dim=-1, keepdim=True)
    if not 1e-30 < float(sums.min()) <= float(sums.max()) < 1e30:
        return scores_GHQL.softmax(dim=-1)
    return powers.div_(sums)


def _grad_softmax(grad_dropped: Tensor, probabilities: Tensor, dropped: Tensor) -> Tensor:
    """The gradient of what the softmax is taken of, float32.

    With D = P * mask and G the gradient of D: dS = P * (mask * G - sum(P * mask * G)) = D * G - P sum(D * G).
    """
    grad = grad_dropped.float().mul_(dropped)
    return grad.addcmul_(probabilities.float(), grad.sum(dim=-1, keepdim=True), value=-1)


def _grad_added(ctx: Any, group: int, grad_GHQL: Tensor) -> Tensor | None:
    """The gradient of what was added to the scores of a group, where it asks for one; of a tensor of its own."""
    if not ctx.added or not ctx.needs_input_grad[group - len(ctx.added)]:
        return None
    is_shared = ctx.added[group] == 1
    return grad_GHQL.sum(dim=0, keepdim=True) if is_shared else grad_GHQL.clone()


def _gradients(ctx: Any, own: Sequence[Tensor], added: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients of all that a function was given: its tensors first, what is added to scores last."""
    added = added if ctx.added else ()
    between = len(ctx.needs_input_grad) - len(own) - len(added)
    return *own, *[None] * between, *added
