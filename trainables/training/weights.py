"""What the trials of a pack train: one row of numbers a trial, of which the model's trained tensors are views.

A row holds a trial's tensors end to end: those that are decayed, those that are not, and last the statistics of its
normalisations, which the model writes and no optimizer moves. The float32 masters are what the optimizer
moves; where products are computed in bf16 the model sees a bf16 copy, made once a step for all tensors at once instead
of tensor by tensor at each use. Rows make joining, leaving, clipping and updating work on whole trials.

Suffixes: K trials, P trained numbers of one, Q numbers of its statistics.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainables.nn.batchnorm import BatchNorm
from trainables.nn.layernorm import LayerNorm
from trainables.training.model import AdaptedModel, statistics_of
from trainables.training.optimizer import RowLayout, StepNumbers, bytes_per_trial, update
from trainables.training.running_trial import RunningTrial


@dataclass(frozen=True, kw_only=True)
class _Leaf:
    """A trained tensor of the model: where it hangs and which part of a row it is."""

    owner: nn.Module
    name: str
    shape: torch.Size  # of one trial
    has_trial_axis: bool
    is_cast: bool  # seen in the compute dtype; else in float32, as the head and embeddings are
    offset: int = 0

    def view(self, rows: Tensor) -> Tensor:
        """This tensor of the trials whose rows are given: (K, *shape), or (*shape) where it has no trial axis."""
        part = rows[:, self.offset : self.offset + self.shape.numel()]
        return part.view(-1, *self.shape) if self.has_trial_axis else part.view(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialState:
    """Everything a trial has trained, off the device while it waits."""

    row: Tensor  # (P + Q,)
    moments: tuple[Tensor, Tensor] | None  # (P,) each; None before its first step
    loss_sum: Tensor


class TrainedWeights:
    """The rows of a pack's trials, their optimizer's moments, and the model's tensors as views of them.

    Takes the trained tensors of a model as its first rows. From then on the model computes with whichever trials
    were last put before it by `show`.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self.layout, self._leaves = _lay_out(model)
        self._statistics = _lay_out_statistics(model)
        self.device = model.head.weight.device
        # As many gradients are laid side by side before they are taken: a launch less for each tensor.
        self.gathered_at_once = 0 if self.device.type == "cpu" else 2**24
        self.version = 0  # other tensors hold the pack's trials whenever it is another
        self.compute_dtype = model.encoder.compute_dtype
        self.replace_rows(self.read(model))

    @property
    def num_trials(self) -> int:
        return self.trained.shape[0]

    @property
    def rows(self) -> Tensor:
        """All there is of the pack's trials (K, P + Q), float32."""
        return self._rows_of(self.trained, self.statistics)

    def _rows_of(self, trained: Tensor, statistics: Tensor) -> Tensor:
        """Of some trials or one, what is trained and its statistics as rows."""
        return torch.cat([trained, statistics], dim=-1) if self._statistics else trained

    @property
    def bytes_per_trial(self) -> int:
        """Memory a trial of the pack costs wherever the pack stands: masters, copy, two moments, gradient."""
        return bytes_per_trial(self.trained.shape[1], self.compute_dtype)

    def read(self, model: AdaptedModel) -> Tensor:
        """The rows (K, P + Q), float32, of the trials a model was built for. The model must be of the same shapes."""
        leaves = [*_lay_out(model)[1], *_lay_out_statistics(model)]
        tensors = [getattr(leaf.owner, leaf.name).detach() for leaf in leaves]
        num_trials = model.head.weight.shape[0]
        return torch.cat([tensor.reshape(num_trials, -1) for tensor in tensors], dim=1)

    def replace_rows(self, rows: Tensor) -> None:
        """Take these (K, P + Q) rows for the trials of the pack from now on, as if none had taken a step."""
        self._take(rows, None, torch.zeros(len(rows), device=self.device))

    def join(self, model: AdaptedModel) -> None:
        """Add the trials that a model was built for, at the end."""
        rows = self.read(model)
        states = [TrialState(row=row, moments=None, loss_sum=row.new_zeros(())) for row in rows]
        self.resume(states)

    def resume(self, states: Sequence[TrialState]) -> None:
        """Add trials where they stopped, at the end."""
        rows = torch.cat([self.rows, torch.stack([state.row for state in states]).to(self.device)])
        moments = None
        if self._moments is not None or any(state.moments is not None for state in states):
            moments = self._joined_moments(states)
        sums = torch.cat([self.loss_sums, torch.stack([state.loss_sum for state in states]).to(self.device)])
        self._take(rows, moments, sums)  # last: where memory did not suffice, the pack is as it was

    def _joined_moments(self, states: Sequence[TrialState]) -> tuple[Tensor, Tensor]:
        own = self._moments or (torch.zeros_like(self.trained), torch.zeros_like(self.trained))
        first, second = (
            torch.cat(
                [
                    own[order],
                    *(
                        own[order].new_zeros(1, own[order].shape[1])
                        if state.moments is None
                        else state.moments[order][None].to(self.device)
                        for state in states
                    ),
                ]
            )
            for order in (0, 1)
        )
        return first, second

    def keep(self, places: Sequence[int]) -> None:
        """Let all trials go but these."""
        kept = list(places)
        moments = self._moments
        moments = None if moments is None else (moments[0][kept], moments[1][kept])
        self._take(self._rows_of(self.trained[kept], self.statistics[kept]), moments, self.loss_sums[kept])

    def state(self, place: int) -> TrialState:
        """A copy of what a trial has, on the host."""
        moments = self._moments
        return TrialState(
            row=self._rows_of(_on_host(self.trained[place]), _on_host(self.statistics[place])),
            moments=None if moments is None else (_on_host(moments[0][place]), _on_host(moments[1][place])),
            loss_sum=_on_host(self.loss_sums[place]),
        )

    def _take(self, rows: Tensor, moments: tuple[Tensor, Tensor] | None, loss_sums: Tensor) -> None:
        num_trained = self.layout.num_trained
        trained, statistics = rows[:, :num_trained], rows[:, num_trained:]
        if self._statistics:  # in memory of their own: they are written while autograd watches over the weights
            trained, statistics = trained.clone(), statistics.clone()
        seen = trained if self.compute_dtype is torch.float32 else trained.to(self.compute_dtype)
        self.trained, self.statistics, self._seen = trained, statistics, seen
        self._moments = moments
        self.loss_sums = loss_sums  # of each trial, over the steps of its epoch
        self._views: dict[tuple[int, int], list[nn.Parameter]] = {}
        self._grads = torch.empty(0, trained.shape[1], device=self.device)
        self.version += 1

    def reserve_gradients(self) -> None:
        """Let gradients of any of the pack's trials lie where they lie, whichever are asked for from now on."""
        if self._grads.shape[0] < self.num_trials:
            self._grads = torch.empty_like(self.trained)

    def update(self, first: int, last: int, grads: Tensor, trials: Sequence[RunningTrial] | StepNumbers) -> None:
        """Take one step of AdamW with trials first..last-1, by their gradients (last - first, P)."""
        if self._moments is None:
            self._moments = torch.zeros_like(self.trained), torch.zeros_like(self.trained)
        moments = self._moments[0][first:last], self._moments[1][first:last]
        if not isinstance(trials, StepNumbers):
            steps = [(trial.config, trial.step, len(trial.batches)) for trial in trials]
            trials = StepNumbers.of(steps, self.device)
        with torch.no_grad():
            seen = None if self._seen is self.trained else self._seen[first:last]
            update(self.trained[first:last], grads, moments, self.layout, trials, seen)

    def show(self, model: AdaptedModel, first: int, last: int, *, masters: bool = False) -> None:
        """Put trials first..last-1 of the pack before the model: their masters, or what products see of them."""
        rows, seen = self.trained[first:last], self._seen[first:last]
        if masters:
            views = [nn.Parameter(leaf.view(rows)) for leaf in self._leaves]
        elif (first, last) in self._views:
            views = self._views[first, last]
        else:
            views = [nn.Parameter(leaf.view(seen if leaf.is_cast else rows)) for leaf in self._leaves]
            self._views[first, last] = views
        self._put(views, self.statistics[first:last])

    def show_places(self, model: AdaptedModel, places: Sequence[int]) -> None:
        """Put some trials of the pack before the model, wherever they stand, to be evaluated until the next call."""
        if list(places) == list(range(places[0], places[0] + len(places))):
            return self.show(model, places[0], places[-1] + 1)
        rows, seen = self.trained[list(places)], self._seen[list(places)]
        views = [nn.Parameter(leaf.view(seen if leaf.is_cast else rows)) for leaf in self._leaves]
        self._put(views, self.statistics[list(places)])
        return None

    def _put(self, views: Sequence[nn.Parameter], statistics: Tensor) -> None:
        for leaf, tensor in zip(self._leaves, views, strict=True):
            setattr(leaf.owner, leaf.name, tensor)
        for leaf in self._statistics:
            setattr(leaf.owner, leaf.name, leaf.view(statistics))

    def take_gradients(self, first: int, last: int) -> Tensor:
        """The gradients (last - first, P), float32, that these trials' tensors have gathered; the tensors forget them.

        Valid until the next call.
        """
        if self._grads.shape[0] < last - first:
            self._grads = torch.empty(last - first, self.trained.shape[1], device=self.device)
        grads = self._grads[: last - first]
        shown = zip(self._leaves, self._views[first, last], strict=True)
        for dtype, neighbours in itertools.groupby(shown, key=lambda pair: pair[1].dtype):
            leaves, tensors = zip(*neighbours, strict=True)
            begin, end = leaves[0].offset, leaves[-1].offset + leaves[-1].shape.numel()
            if len(grads) * (end - begin) <= self.gathered_at_once:
                _gather_gradients(tensors, grads[:, begin:end], dtype)
            else:
                for leaf, tensor in zip(leaves, tensors, strict=True):
                    _copy_gradient(tensor, leaf.view(grads))
        self.forget_gradients(first, last)
        return grads

    def forget_gradients(self, first: int, last: int) -> None:
        """Drop what a step that did not come to its end has gathered."""
        for tensor in self._views.get((first, last), ()):  # none where the step broke before they were shown
            tensor.grad = None

    @contextmanager
    def opened(self, model: AdaptedModel, first: int, last: int, grads: Tensor) -> Iterator[None]:
        """The masters of these trials put before the model with their gradients, to be looked at and changed."""
        self.show(model, first, last, masters=True)
        for leaf in self._leaves:
            getattr(leaf.owner, leaf.name).grad = leaf.view(grads)
        yield
        self.refresh(first, last)
        self.show(model, first, last)

    @torch.no_grad()
    def refresh(self, first: int, last: int) -> None:
        """Let the model see what the optimizer made of these trials' masters."""
        if self._seen is not self.trained:
            self._seen[first:last].copy_(self.trained[first:last])


def _copy_gradient(tensor: nn.Parameter, part: Tensor) -> None:
    if tensor.grad is None:
        part.zero_()
    else:
        part.copy_(tensor.grad)


def _gather_gradients(tensors: Sequence[nn.Parameter], part: Tensor, dtype: torch.dtype) -> None:
    """The gradients of tensors that are neighbours in a row, all of one dtype, into their part of the rows."""
    rows = len(part)
    found = [
        tensor.new_zeros(rows, tensor.numel() // rows, dtype=dtype)
        if tensor.grad is None
        else tensor.grad.reshape(rows, -1)
        for tensor in tensors
    ]
    part.copy_(torch.cat(found, dim=1) if len(found) > 1 else found[0])


def _on_host(tensor: Tensor) -> Tensor:
    """A copy, even where it is there already: a view would keep the whole pack's memory, and be written to."""
    return tensor.to("cpu", copy=True)


def _lay_out(model: AdaptedModel) -> tuple[RowLayout, Sequence[_Leaf]]:
    """How a row is divided, and the leaves in the order of a row."""
    leaves = [
        _leaf(model, name, tensor)
        for name, tensor in model.named_parameters(remove_duplicate=True)
        if tensor.requires_grad
    ]
    # Decay is for matrices: never for biases or LayerNorms (released code of Houlsby et al. 2019).
    decayed = [leaf for leaf in leaves if len(leaf.shape) > 1]
    spared = [leaf for leaf in leaves if len(leaf.shape) <= 1]
    numbers = [sum(leaf.shape.numel() for leaf in leaves) for leaves in (decayed, spared)]
    return RowLayout(num_decayed=numbers[0], num_trained=sum(numbers)), _in_a_row([*decayed, *spared])


def _leaf(model: AdaptedModel, name: str, tensor: Tensor) -> _Leaf:
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    has_axis = model.has_trial_axes or path == "head" or isinstance(owner, LayerNorm)
    return _Leaf(
        owner=owner,
        name=attribute,
        shape=tensor.shape[1:] if has_axis else tensor.shape,
        has_trial_axis=has_axis,
        # A word piece's gradient is a sum over all places where it stands, which bf16 would not hold. The library's own
        # LayerNorms take what comes of that in float32 only with weights in float32.
        is_cast=path != "head"
        and not isinstance(owner, nn.Embedding | BatchNorm)
        and not (isinstance(owner, nn.LayerNorm) and path.startswith("encoder.library.")),
    )


def _lay_out_statistics(model: AdaptedModel) -> Sequence[_Leaf]:
    return _in_a_row(
        [
            _Leaf(owner=owner, name=name, shape=getattr(owner, name).shape[1:], has_trial_axis=True, is_cast=False)
            for owner, name in statistics_of(model)
        ]
    )


def _in_a_row(leaves: Sequence[_Leaf]) -> list[_Leaf]:
    ends = itertools.accumulate((leaf.shape.numel() for leaf in leaves), initial=0)
    return [replace(leaf, offset=offset) for leaf, offset in zip(leaves, ends, strict=False)]
