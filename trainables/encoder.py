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
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.dropout import Dropout

_gelu_tanh = functools.partial(F.gelu, approximate="tanh")

# By the names of Hugging Face configurations. Their own table costs a second of imports in every engine.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_python": F.gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "mish": F.mish,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Everything that fixes an encoder's tensors and arithmetic."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int  # 0: the model knows no token types
    embedding_size: int  # ELECTRA's small models embed narrower than they compute
    position_offset: int = 0  # RoBERTa counts positions from pad_token_id + 1
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    has_pooler: bool = True

    @property
    def max_length(self) -> int:
        """The longest sequence its positions allow, in word pieces."""
        return self.max_positions - self.position_offset

    @property
    def embedding_params(self) -> int:
        """All embeddings, their LayerNorm, and the projection to D where there is one."""
        rows = self.vocab_size + self.max_positions + self.type_vocab_size + 2
        project = (self.embedding_size + 1) * self.hidden_size if self.embedding_size != self.hidden_size else 0
        return rows * self.embedding_size + project

    @property
    def layer_params(self) -> int:
        """One Transformer layer: 4 D^2 + 2 D I + 9 D + I."""
        width, inner = self.hidden_size, self.intermediate_size
        return 4 * width**2 + 2 * width * inner + 9 * width + inner

    @property
    def layernorm_params(self) -> int:
        """Every LayerNorm: 4 D a layer and 2 E for the embeddings'."""
        return 4 * self.num_layers * self.hidden_size + 2 * self.embedding_size

    @property
    def pooler_params(self) -> int:
        """D^2 + D where the model has a pooler."""
        return self.hidden_size**2 + self.hidden_size if self.has_pooler else 0


class Linear(nn.Linear):
    """A product in the dtype of its input, whatever dtype its weight is kept in."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class LayerNorm(nn.Module):
    """LayerNorm with one weight for all (D,), or one a trial (K, D)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, hidden_SLD: Tensor) -> Tensor:
        width = hidden_SLD.shape[-1]
        weight, bias = self.weight.to(hidden_SLD.dtype), self.bias.to(hidden_SLD.dtype)
        if weight.numel() == width:
            return F.layer_norm(hidden_SLD, (width,), weight.view(width), bias.view(width), self.eps)
        num_trials = weight.shape[0]
        normed = F.layer_norm(hidden_SLD, (width,), eps=self.eps).view(num_trials, -1, width)
        return torch.addcmul(bias[:, None], normed, weight[:, None]).view_as(hidden_SLD)


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.offset = shape.position_offset
        self.word = nn.Embedding(shape.vocab_size, shape.embedding_size)
        self.position = nn.Embedding(shape.max_positions, shape.embedding_size)
        types = shape.type_vocab_size
        self.token_type = nn.Embedding(types, shape.embedding_size) if types else None
        self.layernorm = LayerNorm(shape.embedding_size, shape.layer_norm_eps)
        self.dropout = Dropout(shape.hidden_dropout)
        project = shape.embedding_size != shape.hidden_size
        self.project = Linear(shape.embedding_size, shape.hidden_size) if project else None

    def forward(self, input_ids_SL: Tensor, token_types_SL: Tensor, dtype: torch.dtype) -> Tensor:
        length = input_ids_SL.shape[1]
        hidden = self.word(input_ids_SL) + self.position.weight[self.offset : self.offset + length]
        if self.token_type is not None:
            # RoBERTa has a single type; its tokenizer may still number the second text 1.
            hidden = hidden + self.token_type(token_types_SL.clamp_max(self.token_type.num_embeddings - 1))
        hidden = self.dropout(self.layernorm(hidden.to(dtype)))
        return hidden if self.project is None else self.project(hidden)


class Attention(nn.Module):
    """Multi-head self-attention up to, not including, its output projection."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.dropout = Dropout(shape.attention_dropout)

    def forward(self, hidden_SLD: Tensor, padding_S11L: Tensor | None) -> Tensor:
        size, length, width = hidden_SLD.shape
        qkv = self.qkv(hidden_SLD).view(size, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (S, H, L, V)
        if self.training and self.dropout.is_active:
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            scores = scores if padding_S11L is None else scores + padding_S11L
            context = self.dropout(scores.softmax(dim=-1)) @ value
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=padding_S11L)
        return context.transpose(1, 2).reshape(size, length, width)


class SublayerOutput(nn.Module):
    """The end of a sub-layer: LN(x + Adapter(Dropout(W h + b))), the adapter an identity until a method sets one.

    The order is that of the paper's released code: the adapter sees the dropped-out projection, has its own skip,
    and comes before the sub-layer's residual and LayerNorm.
    """

    def __init__(self, in_width: int, shape: EncoderShape) -> None:
        super().__init__()
        self.dense = Linear(in_width, shape.hidden_size)
        self.dropout = Dropout(shape.hidden_dropout)
        self.adapter: nn.Module = nn.Identity()
        self.layernorm = LayerNorm(shape.hidden_size, shape.layer_norm_eps)

    def forward(self, hidden_SLI: Tensor, residual_SLD: Tensor) -> Tensor:
        return self.layernorm(self.adapter(self.dropout(self.dense(hidden_SLI))) + residual_SLD)


class EncoderLayer(nn.Module):
    """One Transformer layer: attention and feed-forward, each with its residual and LayerNorm."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.attention_output = SublayerOutput(shape.hidden_size, shape)
        self.intermediate = Linear(shape.hidden_size, shape.intermediate_size)
        self.activation = ACTIVATIONS[shape.activation]
        self.feedforward_output = SublayerOutput(shape.intermediate_size, shape)

    def forward(self, hidden_SLD: Tensor, padding_S11L: Tensor | None) -> Tensor:
        hidden_SLD = self.attention_output(self.attention(hidden_SLD, padding_S11L), hidden_SLD)
        return self.feedforward_output(self.activation(self.intermediate(hidden_SLD)), hidden_SLD)


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

    def forward(self, input_ids_SL: Tensor, token_types_SL: Tensor, lengths_S: Tensor | None = None) -> Tensor:
        """The first token's final hidden state (S, D); no lengths where no sequence is padded."""
        padding = None
        if lengths_S is not None:
            padded = torch.arange(input_ids_SL.shape[1], device=lengths_S.device) >= lengths_S[:, None]
            padding = torch.zeros(padded.shape, dtype=self.compute_dtype, device=padded.device)
            padding = padding.masked_fill_(padded, torch.finfo(self.compute_dtype).min)[:, None, None]
        hidden_SLD = self.embeddings(input_ids_SL, token_types_SL, self.compute_dtype)
        for layer in self.layers:
            hidden_SLD = layer(hidden_SLD, padding)
        return hidden_SLD[:, 0]
