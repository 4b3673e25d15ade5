"""The Hugging Face model of an encoder's weights with a tuner of huggingface/peft in it, as the body of a view.

The model is built from the encoder's shape over the checkpoint's float32 tensors and wrapped by the library; then what
stays frozen is swapped for the encoder's own tensors, which every trial shares.

Suffixes: S sequences, L length, N virtual tokens, D hidden width.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.backbones import checkpoint_names, families
from trainables.nn.dropout import Dropout
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.initialisation import parameter_device
from trainables.nn.pieces import Pieces
from trainables.nn.structure import copy_structure

if TYPE_CHECKING:
    from peft import PeftConfig


class PeftBody(nn.Module):
    """Hidden states of the tuned Hugging Face model, for `Encoder.replace_body`.

    Its dropout draws as the model's own code does, from the global generator, which each training step sets from the
    trial's seed and step and puts back afterwards. A trial's own rate replaces the backbone's rates; the tuner keeps
    its own.
    """

    def __init__(self, model: nn.Module, shape: EncoderShape, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.model: Any = model
        self.position_offset = shape.position_offset
        self.max_length = shape.max_length
        self.compute_dtype = compute_dtype
        self.dropout = Dropout(shape.hidden_dropout)  # never called: it holds the trial's keys
        # The tuner names its own dropout after itself or its adapter; the backbone's are all called `dropout`.
        named = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
        self._dropouts = [(module, module.p, name.rpartition(".")[2] != "dropout") for name, module in named]

    def forward(self, pieces: Pieces) -> Tensor:
        """Hidden states (N, D) of the last layer, those of virtual tokens left out.

        The library's models read padded sequences, so word pieces are padded for it and its states unpadded.
        """
        device = pieces.input_ids_N.device
        is_low = self.compute_dtype is not torch.float32
        ids_SL1, types_SL1 = (pieces.pad(each[:, None]) for each in (pieces.input_ids_N, pieces.token_types_N))
        with self._own_dropout(device), torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_low):
            hidden_SLD = self._compute(ids_SL1[..., 0], types_SL1[..., 0], pieces.sequences.lengths_S)
        return pieces.unpad(hidden_SLD.to(self.compute_dtype))

    def _compute(self, input_ids_SL: Tensor, token_types_SL: Tensor, lengths_S: Tensor) -> Tensor:
        size, length = input_ids_SL.shape
        config = self.model.active_peft_config
        virtual = config.num_virtual_tokens if config.is_prompt_learning else 0
        if virtual + length > self.max_length:
            raise ValueError(f"{virtual} virtual tokens and a text of {length} exceed {self.max_length} positions")
        positions = torch.arange(virtual + length, device=input_ids_SL.device) + self.position_offset
        mask = positions - self.position_offset < lengths_S[:, None] + virtual
        inputs: dict[str, Any] = {"input_ids": input_ids_SL, "attention_mask": mask}
        if virtual or not self.position_offset:  # else the model counts, and leaves out padding that stands in a text
            inputs["position_ids"] = positions[virtual:].expand(size, -1)
        if types := getattr(self.model.get_base_model().config, "type_vocab_size", 0):
            inputs["token_type_ids"] = token_types_SL.clamp_max(types - 1)
        if not virtual:
            return self.model(**inputs).last_hidden_state
        prompt = self.model.get_prompt(size)
        if not isinstance(prompt, Tensor):  # keys and values that every layer attends to
            return self.model.base_model(**inputs, past_key_values=prompt).last_hidden_state
        embedded_SLD = self.model.word_embeddings(inputs.pop("input_ids"))
        inputs["inputs_embeds"] = torch.cat([prompt.to(embedded_SLD.dtype), embedded_SLD], dim=1)
        inputs["position_ids"] = positions.expand(size, -1)
        if "token_type_ids" in inputs:
            inputs["token_type_ids"] = nn.functional.pad(inputs["token_type_ids"], (virtual, 0))
        return self.model.base_model(**inputs).last_hidden_state[:, virtual:]

    @contextmanager
    def _own_dropout(self, device: torch.device) -> Iterator[None]:
        """Let dropout draw from the trial's seed of this step at the trial's rates; off where there are no keys."""
        keys = self.dropout.keys if self.training else None
        for module, rate, is_of_tuner in self._dropouts:
            trials_own = None if keys is None or is_of_tuner else keys.own_rate(0)
            module.p = 0.0 if keys is None else rate if trials_own is None else trials_own
        with nullcontext() if keys is None else keys.in_global_generator(0, device):
            yield


class AdaLoraBody(PeftBody):
    """AdaLoRA (Zhang et al. 2023), which prunes ranks as it trains and holds its factors near orthogonal."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Weigh every rank by the step's gradients, and zero those beyond the budget."""
        tuner, config = self.model.base_model, self.model.active_peft_config
        if num_steps <= config.tinit + config.tfinal:
            raise ValueError(
                f"tinit {config.tinit} and tfinal {config.tfinal} leave none of {num_steps} steps to prune in"
            )
        tuner.rankallocator.set_total_step(num_steps)
        tuner.update_and_allocate(step)

    def penalty(self) -> Tensor:
        """What the library adds to a model's own loss (1,): the mean distance ||P P^T - I|| of a factor, weighted."""
        distances = []
        for name, factor in self.model.base_model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                factor = factor.float() if ".lora_A." in name else factor.float().T
                distances.append(
                    torch.linalg.matrix_norm(factor @ factor.T - torch.eye(len(factor), device=factor.device))
                )
        return self.model.active_peft_config.orth_reg_weight * torch.stack(distances).mean()[None]


def build_body(view: Encoder, config: PeftConfig, generator: torch.Generator) -> PeftBody:
    """The body of a view for a tuner, its initial values drawn from the generator.

    On the meta device it is built without memory; tuners that must compute to know their sizes are built on stand-ins.
    Raises whatever the library does where the configuration does not suit the model.
    """
    if parameter_device(view).type != "meta":
        return _build(view, config, generator, view.masters)
    try:
        with torch.device("meta"):
            return _build(view, copy.deepcopy(config), generator, dict(view.named_parameters()))
    except (NotImplementedError, RuntimeError):
        stand_ins = {name: torch.ones((), device="cpu").expand(each.shape) for name, each in view.named_parameters()}
        with torch.device("cpu"):
            return _build(view, config, generator, stand_ins)


def _build(view: Encoder, config: PeftConfig, generator: torch.Generator, values: Mapping[str, Tensor]) -> PeftBody:
    from peft import get_peft_model

    shared = _by_their_names(view.shape, dict(view.named_parameters()))
    # Tuners may begin by taking something out of the weights they adapt (PiSSA, OSF), so they are given copies in
    # float32. The embeddings, half of a small model, are not among these.
    masters = _by_their_names(view.shape, values)
    given = {name: value if "embeddings" in name else value.clone() for name, value in masters.items()}
    model = _hugging_face_model(view.shape, given)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of compiled kernels that are not there, and of defaults left out
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
        tuned = get_peft_model(model, config, autocast_adapter_dtype=False)
    device = parameter_device(view)
    settled: dict[int, nn.Parameter] = {}  # one for each, since modules may share them
    for module in tuned.modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in settled:
                settled[id(parameter)] = _settle(parameter, names.get(id(parameter)), masters, shared, device)
            setattr(module, leaf, settled[id(parameter)])
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, leaf, buffer.to(device))
    kind = AdaLoraBody if config.peft_type == "ADALORA" else PeftBody
    return kind(tuned, view.shape, view.compute_dtype)


def _settle(
    parameter: nn.Parameter,
    name: str | None,
    masters: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
    device: torch.device,
) -> nn.Parameter:
    """A parameter of the wrapped model where it is to stay: `name` is the checkpoint's, None for the tuner's own."""
    if parameter.requires_grad:  # never in the memory of the checkpoint
        return nn.Parameter(parameter.detach().to(device=device, dtype=torch.float32, copy=name is not None))
    if name is None:
        return nn.Parameter(parameter.detach().to(device), requires_grad=False)
    if device.type == "meta" or torch.equal(parameter, masters[name]):
        return nn.Parameter(shared[name], requires_grad=False)
    return nn.Parameter(parameter.detach().to(device, shared[name].dtype), requires_grad=False)


def _by_their_names(shape: EncoderShape, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's tensors as views by the checkpoint's names; without the pooler, which the encoder's view keeps."""
    return {
        name: part
        for ours, theirs in checkpoint_names(shape).items()
        if not ours.startswith("pooler")
        for name, part in zip(theirs, tensors[ours].detach().chunk(len(theirs)), strict=True)
    }


def _hugging_face_model(shape: EncoderShape, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The library's model over these tensors, by their names in a checkpoint."""
    model = copy_structure(_without_tensors(shape))
    config = copy.deepcopy(model.config)
    for module in model.modules():
        if "config" in vars(module):  # tuners may note something in it
            module.config = config
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
    device = next(iter(tensors.values())).device
    for module in model.modules():  # of embeddings, for calls that give no positions or types
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            length = buffer.shape[-1]
            values = torch.arange(length) if leaf == "position_ids" else torch.zeros(length, dtype=torch.long)
            setattr(module, leaf, values.expand(buffer.shape).to(device))
    assert model.state_dict().keys() == tensors.keys(), model.state_dict().keys() ^ tensors.keys()
    return model


@functools.lru_cache(maxsize=8)
def _without_tensors(shape: EncoderShape) -> Any:
    """The library's model without memory, which takes longer to build than to copy. Not to be changed."""
    from transformers import AutoConfig, AutoModel

    more = getattr(families()[shape.model_type], "library_config", None)
    config = AutoConfig.for_model(shape.model_type, **_sizes(shape), **({} if more is None else more(shape)))
    has_none = shape.model_type in ("electra", "distilbert", "deberta-v2")
    pooling = {} if has_none else {"add_pooling_layer": False}
    # What is added to scores by distance goes into no fused attention.
    attention = "sdpa" if shape.relative is None else "eager"
    with torch.device("meta"):
        return AutoModel.from_config(config, attn_implementation=attention, **pooling)


def _sizes(shape: EncoderShape) -> dict[str, Any]:
    """The sizes of a shape as a Hugging Face configuration names them."""
    sizes = {
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_positions,
        "pad_token_id": max(0, shape.position_offset - 1),
    }
    if shape.model_type == "distilbert":
        return sizes | {
            "dim": shape.hidden_size,
            "n_layers": shape.num_layers,
            "n_heads": shape.num_heads,
            "hidden_dim": shape.intermediate_size,
            "activation": shape.activation,
            "dropout": shape.hidden_dropout,
            "attention_dropout": shape.attention_dropout,
        }
    return sizes | {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "type_vocab_size": shape.type_vocab_size,
        "embedding_size": shape.embedding_size,
        "layer_norm_eps": shape.layer_norm_eps,
        "hidden_act": shape.activation,
        "hidden_dropout_prob": shape.hidden_dropout,
        "attention_probs_dropout_prob": shape.attention_dropout,
    }
