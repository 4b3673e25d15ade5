"""A whole encoder in transformers' own classes, for models whose layers nothing here knows.

The library's models read padded sequences, so word pieces are padded for them and their states unpadded. Trials do not
share their products, as they do the encoder's own.

Suffixes: S sequences, L length, N rows (word pieces), D hidden width.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainables.nn.dropout import Dropout
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.pieces import Pieces


def build(config: str) -> Any:
    """The library's model of a configuration (JSON), without a pooler, in float32 and on the default device.

    Its weights are drawn at random, from a generator of their own.
    """
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = json.loads(config)
    with torch.random.fork_rng(devices=[]):
        parsed = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        model = AutoModel.from_config(parsed, dtype=torch.float32)
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()  # heads read the word pieces' states; some models call it without a look
    return model.requires_grad_(False)


class LibraryBody(nn.Module):
    """Hidden states of a model in transformers' own classes.

    Its dropout draws as the model's own code does, from the global generator, which each training step sets from the
    trial's seed and step and puts back afterwards. A trial's own rate replaces all of the model's.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        assert shape.library is not None
        self._config = shape.library.config
        self.model = build(self._config)
        self.num_types = shape.type_vocab_size
        self.takes_types = "token_type_ids" in inspect.signature(self.model.forward).parameters
        self.padding = self.model.config.pad_token_id or 0
        self.compute_dtype = torch.float32
        self.dropout = Dropout(shape.hidden_dropout)  # never called: it holds the trial's keys

    def settle(self, device: torch.device, compute_dtype: torch.dtype) -> None:
        """Make what is not of the checkpoint, such as numbers of positions, and check what the model computes.

        Raises `ValueError` with one sentence where it does not compute a text's word pieces from all of the text, and
        from it alone.
        """
        self.compute_dtype = compute_dtype
        with torch.device("cpu"):
            made = dict(build(self._config).named_buffers())
        for name, value in made.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(owner), leaf, value.to(device))
        if fault := self._fault(device):
            raise ValueError(f"a {self.model.config.model_type} in transformers' own classes {fault}")

    def forward(self, pieces: Pieces) -> Tensor:
        """Hidden states (N, D) of the last layer."""
        ids_SL = pieces.pad(pieces.input_ids_N[:, None], self.padding)[..., 0]
        types_SL = pieces.pad(pieces.token_types_N[:, None])[..., 0]
        with self._drawing(ids_SL.device):
            hidden_SLD = self._compute(ids_SL, types_SL, pieces.sequences.lengths_S)
        return pieces.unpad(hidden_SLD)

    def _compute(self, ids_SL: Tensor, types_SL: Tensor, lengths_S: Tensor) -> Tensor:
        mask_SL = (torch.arange(ids_SL.shape[1], device=ids_SL.device) < lengths_S[:, None]).long()
        inputs: dict[str, Tensor] = {"input_ids": ids_SL, "attention_mask": mask_SL}
        if self.takes_types and self.num_types > 1:
            inputs["token_type_ids"] = types_SL.clamp_max(self.num_types - 1)
        is_low = self.compute_dtype is not torch.float32
        with torch.autocast(ids_SL.device.type, dtype=torch.bfloat16, enabled=is_low):
            states: Tensor = self.model(**inputs).last_hidden_state
        return states.to(self.compute_dtype)

    @torch.no_grad()
    def _fault(self, device: torch.device) -> str | None:
        """Why its states are not those of an encoder of texts; None where they are."""
        self.model.eval()
        # The second word is another, which the first sees however narrow the windows of attention are.
        words = torch.tensor([[3, 4, 5, 6, 7, 8], [3, 9, 5, 6, 7, 8]], device=device)
        lengths = torch.tensor([6, 6], device=device)
        try:
            states = self._compute(words, torch.zeros_like(words), lengths)
            padded = torch.cat([words[:, :4], torch.full_like(words[:, :2], self.padding)], dim=1)
            within = self._compute(padded, torch.zeros_like(words), lengths - 2)
            alone = self._compute(words[:, :4], torch.zeros_like(words[:, :4]), lengths - 2)
        except Exception as error:  # whatever the library has to say against it
            return f"cannot compute a text of six words: {error}"
        if states.shape[:2] != words.shape:
            return f"must give a state for each of six words, but gave {tuple(states.shape)}"
        if torch.equal(states[0, 0], states[1, 0]):
            return "lets no word see what follows it, as a decoder does, so its first word's state says nothing"
        spread = float(states.float().std())
        if float((within[:, :4] - alone).float().abs().max()) > 0.05 * spread:
            return "reads padding, so that a text's states would depend on its neighbours' lengths"
        return None

    @contextmanager
    def _drawing(self, device: torch.device) -> Iterator[None]:
        """Let dropout draw from the trial's seed of this step at the trial's rates; off where there are no keys."""
        if not self.training:
            yield
            return
        keys = self.dropout.keys
        rate = 0.0 if keys is None else keys.own_rate(0)
        # Some modules hold a rate as a number that they give on to a function.
        held = [
            (module, name, value)
            for module in self.model.modules()
            for name, value in vars(module).items()
            if isinstance(value, float) and ("dropout" in name or (name == "p" and isinstance(module, nn.Dropout)))
        ]
        for module, name, _ in held if rate is not None else []:
            setattr(module, name, rate)
        try:
            with nullcontext() if keys is None else keys.in_global_generator(0, device):
                yield
        finally:
            for module, name, value in held:
                setattr(module, name, value)
