"""Self-attention with dropout of its probabilities, forwards and backwards, in blocks that stay in the cache.

No library attention drops out with one random stream a trial, and on a CPU none of the fast ones drops out at all.
Products are in the compute dtype, the softmax is float32.

Suffixes: S sequences, L positions, D hidden width, H heads, V head width, R rows of a block: its sequences times H.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.nn.dropout import Dropout

# Scores of one block on a CPU: as float32 the size of a typical second-level cache. On a GPU all is one block.
BLOCK_ELEMENTS = 262_144


def attend(qkv_SLE: Tensor, num_heads: int, padding_S11L: Tensor | None, dropout: Dropout) -> Tensor:
    """softmax(Q K^T / sqrt(V)) V over projected queries, keys and values (S, L, 3D); gives (S, L, D).

    `padding_S11L` is added to the scores: 0 where a key is a word piece, a large negative number where it is padding.
    """
    if dropout.is_active or qkv_SLE.device.type == "cpu":
        attended: Tensor = _Attention.apply(qkv_SLE, num_heads, padding_S11L, dropout)
        return attended
    size, length, width = qkv_SLE.shape
    query, key, value = qkv_SLE.view(size, length, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=padding_S11L)
    return context.transpose(1, 2).reshape(size, length, width // 3)


def attend_first(
    query_SD: Tensor,
    key_SLD: Tensor,
    value_SLD: Tensor,
    num_heads: int,
    padding_S11L: Tensor | None,
    dropout: Dropout,
) -> Tensor:
    """Attention of each sequence's first token alone; gives (S, D)."""
    size, length, width = key_SLD.shape
    query = query_SD.view(size, 1, num_heads, -1).transpose(1, 2)
    key, value = (each.view(size, length, num_heads, -1).transpose(1, 2) for each in (key_SLD, value_SLD))
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    scores = scores if padding_S11L is None else scores + padding_S11L
    probabilities = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    if dropout.is_active:
        probabilities = probabilities * dropout.mask(probabilities, along=(3,))
    return (probabilities @ value).transpose(1, 2).reshape(size, width)


class _Attention(torch.autograd.Function):
    """Keeps the probabilities, with and without dropout; the masks follow from the two."""

    @staticmethod
    def forward(ctx: Any, qkv_SLE: Tensor, num_heads: int, padding_S11L: Tensor | None, dropout: Dropout) -> Tensor:
        size, length, width = qkv_SLE.shape
        heads = qkv_SLE.view(size, length, 3, num_heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        query, key, value = heads.flatten(1, 2)  # each (S*H, L, V)
        scale = query.shape[-1] ** -0.5
        context = torch.empty_like(query)
        probabilities = query.new_empty(size * num_heads, length, length)
        dropped = torch.empty_like(probabilities) if dropout.is_active else probabilities
        for first, last in _blocks(size, num_heads * length * length, query.device):
            rows = slice(first * num_heads, last * num_heads)
            keys = key[rows].transpose(1, 2)
            if padding_S11L is None:
                scores = torch.bmm(query[rows], keys).mul_(scale)
            else:
                added = padding_S11L[first:last].expand(-1, num_heads, length, -1).flatten(0, 1)
                scores = torch.baddbmm(added, query[rows], keys, alpha=scale)
            probabilities[rows] = _softmax(scores)
            if dropout.is_active:
                block = probabilities[rows].view(last - first, num_heads, length, length)
                mask = dropout.mask(block, along=(2, 3), first=first).view(-1, length, length)
                torch.mul(probabilities[rows], mask, out=dropped[rows])
            torch.bmm(dropped[rows], value[rows], out=context[rows])
        ctx.save_for_backward(heads, probabilities, dropped)
        return context.view(size, num_heads, length, -1).transpose(1, 2).reshape(size, length, width // 3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        heads, probabilities, dropped = ctx.saved_tensors
        _, size, num_heads, length, width = heads.shape
        query, key, value = heads.flatten(1, 2)
        grad_heads = torch.empty_like(heads)
        grad_query, grad_key, grad_value = grad_heads.flatten(1, 2)
        grad_context = grads[0].view(size, length, num_heads, width).transpose(1, 2).flatten(0, 1)
        for first, last in _blocks(size, num_heads * length * length, query.device):
            rows = slice(first * num_heads, last * num_heads)
            torch.bmm(dropped[rows].transpose(1, 2), grad_context[rows], out=grad_value[rows])
            # With D = P * mask and G the gradient of D: dS = P * (mask * G - sum(P * mask * G)) = D * G - P sum(D * G).
            grad = torch.bmm(grad_context[rows], value[rows].transpose(1, 2)).float().mul_(dropped[rows])
            grad.addcmul_(probabilities[rows].float(), grad.sum(dim=-1, keepdim=True), value=-1)
            grad_scores = grad.mul_(width**-0.5).to(query.dtype)
            torch.bmm(grad_scores, key[rows], out=grad_query[rows])
            torch.bmm(grad_scores.transpose(1, 2), query[rows], out=grad_key[rows])
        return grad_heads.permute(1, 3, 0, 2, 4).reshape(size, length, -1), None, None, None


def _blocks(size: int, scores_per_sequence: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Ranges of sequences whose scores are worked on at once."""
    step = max(1, BLOCK_ELEMENTS // scores_per_sequence) if device.type == "cpu" else size
    for first in range(0, size, step):
        yield first, min(first + step, size)


def _softmax(scores_RLL: Tensor) -> Tensor:
    """Probabilities in float32, from scores that may be overwritten.

    torch's own CPU kernel works row by row and takes ten times as long where rows are shorter than a vector register,
    as those of short texts are. The shift by the largest score is only for the range of float32, so it is left out
    unless a row leaves that range.
    """
    scores_RLL = scores_RLL.float()
    if scores_RLL.device.type != "cpu":
        return scores_RLL.softmax(dim=-1)
    powers = scores_RLL.exp()
    sums = powers.sum(dim=-1, keepdim=True)
    if not 1e-30 < float(sums.min()) <= float(sums.max()) < 1e30:
        return scores_RLL.softmax(dim=-1)
    return powers.div_(sums)
