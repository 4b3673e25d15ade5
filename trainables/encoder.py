"""The frozen encoder: BERT's post-LayerNorm Transformer, lean enough to train many trials at once.

- One module serves BERT, RoBERTa, XLM-R, ELECTRA and DistilBERT; `checkpoint.py` maps their weights into it.
- `view()` gives a structural copy that shares every tensor; a method puts private modules into its own view.
- Private modules carry a leading trial axis K. Hidden states are (K*B, L, D), trial after trial; frozen products see
  them as one batch.
- Frozen weights are held in the compute dtype; trained ones are float32 masters, cast as they are used.
- Dropout draws from one random stream a trial, so a trial's masks do not depend on who trains beside it.

Suffixes: K trials, B sequences a trial, S = K*B, L length, D hidden, H heads, V head width, I intermediate width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.layernorm import LayerNorm
from trainables.layers import Embeddings, EncoderLayer, Linear, SublayerOutput
from trainables.shape import EncoderShape


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """Hidden states of a batch above the frozen layers at the bottom, which a training need not compute again."""

    hidden_SLD: Tensor
    num_layers: int


class Encoder(nn.Module):
    """A pre-trained encoder, all frozen, of which methods take views.

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
        self.embeddings = Embeddings(shape)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.num_layers))
        self.pooler = Linear(shape.hidden_size, shape.hidden_size) if shape.has_pooler else None
        self.requires_grad_(False)

    def load(self, device: torch.device, compute_dtype: torch.dtype) -> Encoder:
        """Take the masters' values onto a device, frozen and in the dtype products are computed in.

        Raises `ValueError` naming every tensor whose size is not the shape's.
        """
        expected = {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}
        wrong = [
            f"{name} is {tuple(master.shape)} instead of {expected[name]}"
            for name, master in self.masters.items()
            if tuple(master.shape) != expected[name]
        ]
        if wrong:
            raise ValueError(f"tensors must have the configuration's sizes, but {'; '.join(wrong[:5])}")
        self.compute_dtype = compute_dtype
        for name, master in self.masters.items():
            owner, _, leaf = name.rpartition(".")
            frozen = nn.Parameter(master.to(device=device, dtype=compute_dtype), requires_grad=False)
            setattr(self.get_submodule(owner), leaf, frozen)
        return self

    @property
    def device(self) -> torch.device:
        return self.embeddings.word.weight.device

    def view(self) -> Encoder:
        """A structural copy that shares every tensor: its modules may be replaced, its tensors must not be written."""
        shared: dict[int, object] = {id(parameter): parameter for parameter in self.parameters()}
        shared[id(self.masters)] = self.masters
        return copy.deepcopy(self, shared)

    def train_copy(self, prefix: str, *, num_trials: int = 1) -> None:
        """Replace the parameters named `prefix` or below it by trained float32 copies of the checkpoint's values.

        LayerNorms get one copy a trial, (K, D); other weights are private to packs of one.
        Raises `KeyError` where no parameter has such a name.
        """
        names = [name for name, _ in self.named_parameters() if name == prefix or name.startswith(f"{prefix}.")]
        if not names:
            raise KeyError(prefix)
        for name in names:
            owner, _, leaf = name.rpartition(".")
            module = self.get_submodule(owner)
            frozen = getattr(module, leaf)
            value = self.masters.get(name, frozen).to(device=frozen.device, dtype=torch.float32)
            if isinstance(module, LayerNorm):
                value = value.expand(num_trials, -1)
            setattr(module, leaf, nn.Parameter(value.clone(memory_format=torch.contiguous_format)))

    def sublayer_outputs(self) -> list[SublayerOutput]:
        """The 2L ends of sub-layers, where adapters stand: attention's, then feed-forward's, bottom layer first."""
        return [module for module in self.layers.modules() if isinstance(module, SublayerOutput)]

    def layernorm_names(self) -> list[str]:
        """Every LayerNorm of the model: 2 a layer and the embeddings' (2L + 1)."""
        return [name for name, module in self.named_modules() if isinstance(module, LayerNorm)]

    @property
    def num_frozen_layers(self) -> int:
        """Layers at the bottom of which nothing is trained; 0 where the embeddings are, or their LayerNorm."""
        if any(parameter.requires_grad for parameter in self.embeddings.parameters()):
            return 0
        is_trained = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in self.layers]
        return is_trained.index(True) if True in is_trained else len(is_trained)

    def forward(
        self,
        input_ids_SL: Tensor,
        token_types_SL: Tensor,
        lengths_S: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """The first token's final hidden state (S, D); no lengths where no sequence is padded.

        With the hidden states of a prefix, only the layers above it are computed.
        """
        padding = self._padding(input_ids_SL, lengths_S)
        if prefix is None:
            hidden_SLD, below = self.embeddings(input_ids_SL, token_types_SL, self.compute_dtype), 0
        else:
            hidden_SLD, below = prefix.hidden_SLD, prefix.num_layers
        if below == len(self.layers):
            return hidden_SLD[:, 0]
        *lower, last = list(self.layers)[below:]
        for layer in lower:
            hidden_SLD = layer(hidden_SLD, padding)
        assert isinstance(last, EncoderLayer)
        return last.first(hidden_SLD, padding)

    def run_prefix(
        self, input_ids_SL: Tensor, token_types_SL: Tensor, lengths_S: Tensor | None, num_layers: int
    ) -> Tensor:
        """The hidden states (S, L, D) above the embeddings and the lowest `num_layers` layers."""
        padding = self._padding(input_ids_SL, lengths_S)
        hidden_SLD = self.embeddings(input_ids_SL, token_types_SL, self.compute_dtype)
        for layer in self.layers[:num_layers]:
            hidden_SLD = layer(hidden_SLD, padding)
        return hidden_SLD

    def _padding(self, input_ids_SL: Tensor, lengths_S: Tensor | None) -> Tensor | None:
        """What is added to attention scores (S, 1, 1, L): 0, or a large negative number for keys that are padding."""
        if lengths_S is None:
            return None
        padded = torch.arange(input_ids_SL.shape[1], device=lengths_S.device) >= lengths_S[:, None]
        padding = torch.zeros(padded.shape, dtype=self.compute_dtype, device=padded.device)
        return padding.masked_fill_(padded, torch.finfo(self.compute_dtype).min)[:, None, None]
