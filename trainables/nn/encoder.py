"""The frozen encoder: a Transformer of the BERT family, lean enough to train many trials at once.

- One module serves every family of `trainables.backbones`, which map their weights into it: LayerNorms behind the
  sub-layers or before them, positions embedded or rotary, layers of their own weights or of shared ones.
- `view()` gives a structural copy that shares every tensor; a method puts private modules into its own view.
- Private modules carry a leading trial axis K. Hidden states are word pieces laid end to end (N, D), trial after trial
  and without padding (`nn.pieces`); frozen products see them as one matrix.
- Frozen weights are held in the compute dtype; trained ones are float32 masters, cast as they are used.
- Dropout masks follow from keys (`nn.dropout`), so a trial's masks do not depend on who trains beside it.

Suffixes: K trials, B sequences a trial, S = K*B, N rows (word pieces), D hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.layernorm import LayerNorm
from trainables.nn.layers import Embeddings, EncoderLayer, layernorm_of
from trainables.nn.library import LibraryBody
from trainables.nn.linear import Linear
from trainables.nn.pieces import Pieces
from trainables.nn.postnorm import PostNormLayer
from trainables.nn.prenorm import PreNormLayer
from trainables.nn.structure import copy_structure


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """What frozen layers make of a batch, which a training need not compute again."""

    hidden: Tensor  # (N, D) above the lowest `num_layers` layers, or (S, D): what a head reads of a frozen encoder
    num_layers: int
    is_features: bool = False  # whether it is the latter


class Batch:
    """The batch an encoder is at work on, for the modules that tell word pieces from dummy rows."""

    pieces: Pieces | None = None

    def is_piece_KM(self, num_rows: int) -> Tensor | None:
        """False for dummy rows; None where there are none, as in what has one row a sequence."""
        if self.pieces is None or num_rows != self.pieces.num_rows:
            return None
        return self.pieces.is_piece_KM


# What a head may read of the last layer: the first token's state, that through the pooler, or the mean over all word
# pieces. "tokens" is every word piece's state, for tasks whose answer is a place in the text.
POOLINGS = ("first", "pooler", "mean")


class Encoder(nn.Module):
    """A pre-trained encoder, all frozen, of which methods take views.

    A method may set on its view what the head reads (`pooling`; a backbone without a pooler gives the first token's
    state in its place), a hidden layer of the head (`head_hidden_size`), or a `body` that computes everything.

    Args:
        shape: its sizes.
        masters: the checkpoint's float32 tensors by parameter name, from which a method takes trained copies;
            empty on the meta device, where only sizes matter.
    """

    def __init__(self, shape: EncoderShape, masters: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.compute_dtype = torch.float32
        self.masters = masters or {}
        self.fingerprint: str | None = None  # of the checkpoint; None where it is not of one
        self.library = None if shape.library is None else LibraryBody(shape)
        if self.library is None:
            self.embeddings = Embeddings(shape)
        self.layers = nn.ModuleList() if self.library is not None else _layers(shape)
        self.final_norm = layernorm_of(shape.hidden_size, shape) if shape.is_pre_norm else None
        self.pooler = Linear(shape.hidden_size, shape.hidden_size) if shape.has_pooler else None
        self.body: nn.Module | None = None
        self.pooling = shape.pooling
        self.head_hidden_size = 0
        self.width = shape.hidden_size  # of what the head reads
        self.batch = Batch()
        self.requires_grad_(False)

    def check_masters(self) -> None:
        """Raises `ValueError` naming every tensor whose size is not the shape's."""
        expected = {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}
        wrong = [
            f"{name} is {tuple(master.shape)} instead of {expected[name]}"
            for name, master in self.masters.items()
            if tuple(master.shape) != expected[name]
        ]
        if wrong:
            raise ValueError(f"tensors must have the configuration's sizes, but {'; '.join(wrong[:5])}")

    def load(self, device: torch.device, compute_dtype: torch.dtype) -> Encoder:
        """Take the masters' values onto a device, frozen and in the dtype products are computed in.

        Raises `ValueError` naming every tensor whose size is not the shape's.
        """
        self.check_masters()
        self.compute_dtype = compute_dtype
        for name, master in self.masters.items():
            owner, _, leaf = name.rpartition(".")
            frozen = nn.Parameter(master.to(device=device, dtype=compute_dtype), requires_grad=False)
            setattr(self.get_submodule(owner), leaf, frozen)
        if self.library is not None:
            self.library.settle(device, compute_dtype)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def view(self) -> Encoder:
        """A structural copy that shares every tensor: its modules may be replaced, its tensors must not be written."""
        view = copy_structure(self)
        view.batch = Batch()
        return view

    def train_copy(self, prefix: str, *, num_trials: int = 1) -> None:
        """Replace the parameters named `prefix` or below it by trained float32 copies of the checkpoint's values.

        LayerNorms and biases get one copy a trial, (K, D); other weights are private to packs of one. What layers
        share is trained for all that share it, and once. Raises `KeyError` where no parameter has such a name.
        """
        held = self.named_parameters(remove_duplicate=False)
        names = [name for name, _ in held if name == prefix or name.startswith(f"{prefix}.")]
        if not names:
            raise KeyError(prefix)
        for name in names:
            owner, _, leaf = name.rpartition(".")
            module = self.get_submodule(owner)
            frozen = getattr(module, leaf)
            if frozen.requires_grad:  # by another layer's name
                continue
            value = self.masters.get(self._name_of_master(name), frozen).to(device=frozen.device, dtype=torch.float32)
            if isinstance(module, LayerNorm) or (leaf == "bias" and prefix == name):
                value = value.expand(num_trials, -1)
            setattr(module, leaf, nn.Parameter(value.clone(memory_format=torch.contiguous_format)))

    def _name_of_master(self, name: str) -> str:
        kind, *rest = name.split(".")
        if kind != "layers":
            return name
        return ".".join([kind, str(self.shape.owner_of(int(rest[0]))), *rest[1:]])

    def split_layers(self, first: int) -> None:
        """Let the layers from `first` up share no weights with those below, so that they can be trained without them.

        Their weights have the values of what they were split from, and are shared among them as before.
        """
        copies: dict[int, nn.Module] = {}
        for layer in range(first, len(self.layers)):
            if self.shape.weights_of:
                self.layers[layer] = copy_structure(self.layers[layer], copies)

    def train_layers(self, first: int = 0) -> None:
        """Train the layers from `first` up and the LayerNorm above the last, where there is one."""
        self.split_layers(first)
        for layer in range(first, len(self.layers)):
            self.train_copy(f"layers.{layer}")
        if self.final_norm is not None:
            self.train_copy("final_norm")

    def train_everything(self) -> None:
        """Train every weight: embeddings, layers, and the pooler where there is one."""
        if self.library is not None:
            self.train_copy("library")
            return
        self.train_copy("embeddings")
        if self.pooler is not None:
            self.train_copy("pooler")
        self.train_layers()

    def replace_body(self, body: nn.Module, width: int) -> None:
        """Let a module compute everything: body(pieces) -> hidden states (N, D), or features (S, D).

        The view drops its own embeddings and layers. Its pooler stays, for bodies that give hidden states.
        """
        self.body, self.width = body, width
        self.layers, self.final_norm = nn.ModuleList(), None
        del self.embeddings

    def layernorm_names(self) -> list[str]:
        """Every LayerNorm of the model: 2 a layer and the embeddings' (2L + 1), one that layers share once.

        In a pre-norm encoder the first layer has one, and one stands above the last.
        """
        return [name for name, module in self.named_modules() if isinstance(module, LayerNorm)]

    @property
    def num_frozen_layers(self) -> int:
        """Layers at the bottom of which nothing is trained; 0 where the embeddings are, or their LayerNorm."""
        if self.body is not None or self.library is not None:
            return 0
        if any(parameter.requires_grad for parameter in self.embeddings.parameters()):
            return 0
        is_trained = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in self.layers]
        return is_trained.index(True) if True in is_trained else len(is_trained)

    @property
    def gives_features(self) -> bool:
        """Whether nothing of it is trained, so that what the head reads is a property of the row."""
        return self.body is None and not any(parameter.requires_grad for parameter in self.parameters())

    def forward(self, pieces: Pieces, prefix: Prefix | None = None) -> Tensor:
        """What the head reads: (S, D), or with the pooling "tokens" (N, D).

        With the hidden states of a prefix, only the layers above it are computed.
        """
        self.batch.pieces = pieces
        if self.body is not None:
            states = self.body(pieces)
            is_pooled = states.shape[0] == pieces.num_sequences != pieces.num_rows
            return states if is_pooled else self._pool(states, pieces)
        if prefix is not None and prefix.is_features:
            return prefix.hidden
        if self.library is not None:
            return self._pool(self.library(pieces), pieces)
        pieces = self.embeddings.relate(pieces, self.compute_dtype)
        if prefix is None:
            hidden_ND, below = self.embeddings(pieces, self.compute_dtype), 0
        else:
            hidden_ND, below = prefix.hidden, prefix.num_layers
        reads_first = self.pooling in ("first", "pooler")
        for index in range(below, len(self.layers)):
            layer = self.layers[index]
            assert isinstance(layer, EncoderLayer)
            if reads_first and index == len(self.layers) - 1:
                return self._project(self._finish(layer.first(hidden_ND, pieces)))
            hidden_ND = layer(hidden_ND, pieces)
        return self._pool(self._finish(hidden_ND), pieces)

    def _finish(self, hidden_ND: Tensor) -> Tensor:
        """What the last layer gives as heads read it."""
        return hidden_ND if self.final_norm is None else self.final_norm(hidden_ND)

    def _pool(self, hidden_ND: Tensor, pieces: Pieces) -> Tensor:
        if self.pooling == "tokens":
            return hidden_ND
        if self.pooling == "mean":
            return pieces.mean(hidden_ND)
        return self._project(pieces.first(hidden_ND))

    def _project(self, first_SD: Tensor) -> Tensor:
        """The first token's state, through the pooler where the head reads that."""
        if self.pooling == "first" or self.pooler is None:
            return first_SD
        return torch.tanh(self.pooler(first_SD))

    def run_prefix(self, pieces: Pieces, num_layers: int) -> Tensor:
        """The hidden states (N, D) above the embeddings and the lowest `num_layers` layers, where `forward` goes on."""
        pieces = self.embeddings.relate(pieces, self.compute_dtype)
        hidden_ND = self.embeddings(pieces, self.compute_dtype)
        for layer in self.layers[:num_layers]:
            hidden_ND = layer(hidden_ND, pieces)
        return hidden_ND


def _layers(shape: EncoderShape) -> nn.ModuleList:
    """The layers of an encoder, the bottom one first."""
    if shape.is_pre_norm:
        return nn.ModuleList(PreNormLayer(shape, layer) for layer in range(shape.num_layers))
    layers: list[PostNormLayer] = []
    for layer in range(shape.num_layers):
        owner = shape.owner_of(layer)
        layers.append(PostNormLayer(shape, layer, layers[owner] if owner < layer else None))
    return nn.ModuleList(layers)
