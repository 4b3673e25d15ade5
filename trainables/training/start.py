"""Where a trial's training starts, other than at the backbone: at what another trial has trained, but for its head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainables.training.model import AdaptedModel, statistics_of

# The tensors of a trial that has been trained, by their names in its model, without a trial axis; its head may be among
# them. Read when the trial begins, since those of a whole encoder are large.
Start = Callable[[], Mapping[str, Tensor]]

HEAD = "head."


def begin(model: AdaptedModel, starts: Sequence[Start | None]) -> None:
    """Give each trial of a new model what it starts from; one without a start keeps its initial values.

    Everything trained in the encoder is replaced, the head is not: it is another task's. Raises `ValueError` where a
    start has not the tensors that the trial trains.
    """
    for place, start in enumerate(starts):
        if start is not None:
            _begin(model, place, start())


@torch.no_grad()
def _begin(model: AdaptedModel, place: int, start: Mapping[str, Tensor]) -> None:
    if statistics_of(model):
        raise ValueError("a trial that keeps statistics of its batches cannot start from another's weights")
    given = {name: tensor for name, tensor in start.items() if not name.startswith(HEAD)}
    trained = {
        name: parameter[place] if model.has_trial_axes else parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(HEAD)
    }
    if odd := sorted(trained.keys() ^ given.keys()):
        raise ValueError(f"a start must hold what the trial trains, but differs in {', '.join(odd[:5])}")
    for name, tensor in trained.items():
        if tensor.numel() != given[name].numel():
            came = f"{tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
            raise ValueError(f"a start must have the sizes of what the trial trains, but {name} is {came}")
    for name, tensor in trained.items():
        tensor.copy_(given[name].view_as(tensor))
