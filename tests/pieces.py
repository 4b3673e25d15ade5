"""Batches of word pieces laid end to end, made of what is easier to write down, and places in an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.nn.dropout import StepKeys
from trainables.nn.encoder import Encoder
from trainables.nn.layers import SublayerOutput
from trainables.nn.pieces import Pieces, lay, pieces_of
from trainables.training.model import AdaptedModel


def laid_out(
    ids_SL: Tensor, types_SL: Tensor | None = None, lengths_S: Tensor | None = None, *, num_trials: int = 1
) -> Pieces:
    """The batch of sequences that stand in padded rows, those of trial after trial; all of full length by default."""
    size, longest = ids_SL.shape
    lengths = np.full(size, longest) if lengths_S is None else lengths_S.numpy()
    types_SL = torch.zeros_like(ids_SL) if types_SL is None else types_SL
    is_piece = torch.arange(longest) < torch.from_numpy(lengths)[:, None]
    laid = lay(np.arange(size), lengths, num_trials)
    return pieces_of(laid, ids_SL[is_piece].numpy(), types_SL[is_piece].numpy(), torch.device("cpu"))


def drop_out(
    model: AdaptedModel,
    pieces: Pieces,
    seeds: Sequence[int] = (0,),
    rates: Sequence[float | None] | None = None,
    step: int = 0,
) -> None:
    """Let a model drop out in this batch as it does in training."""
    model.drop_out(StepKeys(seeds, [step] * len(seeds), [None] * len(seeds) if rates is None else rates, pieces))


def sublayer_outputs(encoder: Encoder) -> list[SublayerOutput]:
    """The 2L ends of sub-layers, where adapters stand: attention's, then feed-forward's, bottom layer first."""
    return [module for module in encoder.layers.modules() if isinstance(module, SublayerOutput)]
