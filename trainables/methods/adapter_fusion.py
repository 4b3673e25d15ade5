"""AdapterFusion (Pfeiffer et al. 2021), stage two: an attention over adapters that other trials have trained.

Stage one is trials of the method `adapter` with `placement: pfeiffer` and `train_layernorms: false`, one a task,
exported from their store. Here they are frozen like the backbone. In each layer, with h the feed-forward projection,
x its residual and z = LN(h + x), adapter n gives u_n without its skip, and

    LN(h + x + sum_n softmax_n(dropout(q . k_n)) v_n),   q = Q z + b_Q,   k_n = K u_n + b_K,   v_n = V u_n

is what the layer gives. Trained are Q, K, V of every layer and the head. V starts as the identity and is held near it
by 0.01 ||I - V||^2 in the loss, a term a layer.

Suffixes: K trials, S = K*B sequences, L length, R = S*L rows, N adapters, D hidden, A adapter width.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.dropout import Dropout
from trainables.encoder import Encoder
from trainables.faults import FaultsError, unknown_name
from trainables.initialisation import parameter_device
from trainables.layers import ACTIVATIONS, EncoderLayer
from trainables.shape import EncoderShape
from trainables.stacked import StackedLinear

VALUE_PENALTY = 0.01
# What an adapter of stage one must be for this wiring, and what it is where its options do not say.
_REQUIRED: dict[str, tuple[Any, Any]] = {
    "placement": ("pfeiffer", "houlsby"),
    "train_layernorms": (False, True),
    "interaction": ("add", "add"),
    "norm": ("none", "none"),
    "depth": (1, 1),
    "layers": ("all", "all"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """`adapters` is the store of stage one, or a folder of exported adapters; `tasks` names those to fuse, or "all".

    Of several adapters for one task the one with the best validation score is taken.
    """

    adapters: str = ""
    tasks: str = "all"

    def faults(self, shape: EncoderShape) -> list[str]:
        try:
            sources = _sources(self)
        except FaultsError as error:
            return list(error.faults)
        faults = []
        for source in sources:
            about = source.about["trial_config"]["method_options"]
            wrong = [
                f"{name} {about.get(name, unsaid)!r}"
                for name, (required, unsaid) in _REQUIRED.items()
                if about.get(name, unsaid) != required
            ]
            if source.about["trial_config"]["method"] != "adapter" or wrong:
                rule = "must be of method adapter with placement pfeiffer and train_layernorms false"
                came = ", ".join(wrong) or source.about["trial_config"]["method"]
                faults.append(f"adapters: {source.task} {rule}, but has {came}")
            elif source.width != shape.hidden_size or source.num_layers != shape.num_layers:
                rule = f"must fit a backbone of {shape.num_layers} layers of width {shape.hidden_size}"
                faults.append(f"adapters: {source.task} {rule}, but has {source.num_layers} of {source.width}")
        return faults


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An exported adapter."""

    task: str
    folder: Path
    about: Mapping[str, Any]
    num_layers: int
    width: int


class Fusion(nn.Module):
    """K fusions, one a trial, of the N adapters of one layer."""

    def __init__(
        self,
        width: int,
        adapters: Sequence[Mapping[str, Tensor]],
        activations: Sequence[str],
        scales: Sequence[float],
        generators: Sequence[torch.Generator],
        device: torch.device,
        dropout: float,
    ) -> None:
        super().__init__()
        self.activations, self.scales = list(activations), list(scales)
        for index, tensors in enumerate(adapters):  # frozen, yet the trial's own: buffers are saved with it
            for name, tensor in tensors.items():
                self.register_buffer(f"{name}_{index}", tensor.to(device))
        self.query = StackedLinear(width, width, 0.02, generators, device)
        self.key = StackedLinear(width, width, 0.02, generators, device)
        self.value = StackedLinear(width, width, 0.0, generators, device, bias=False)
        with torch.no_grad():
            self.value.weight.fill_(1e-6).diagonal(dim1=1, dim2=2).fill_(1.0)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_SLD: Tensor, residual_SLD: Tensor, layernorm: nn.Module) -> Tensor:
        """The feed-forward projection with the fused adapters' part added, before residual and LayerNorm."""
        normalised = layernorm(hidden_SLD, residual_SLD)
        outputs = [self._output(index, normalised) for index in range(len(self.scales))]
        query = self.query(normalised)
        scores = torch.stack(
            [(query * self.key(output)).sum(dim=-1, dtype=torch.float32) for output in outputs], dim=-1
        )
        shares = self.dropout(scores).softmax(dim=-1).to(hidden_SLD.dtype)
        # Sum first, then V: it is linear, so N products become one.
        mixed = torch.stack(outputs, dim=-1) @ shares[..., None]
        return hidden_SLD + self.value(mixed[..., 0])

    def _output(self, index: int, read: Tensor) -> Tensor:
        """What adapter `index` makes of it, without a skip."""
        down, down_bias, up, up_bias = (
            getattr(self, f"{name}_{index}").to(read.dtype) for name in ("down_proj", "down_bias", "up_proj", "up_bias")
        )
        bottleneck = ACTIVATIONS[self.activations[index]](read @ down + down_bias)
        return (bottleneck @ up + up_bias) * self.scales[index]

    def penalty(self) -> Tensor:
        """0.01 ||I - V||^2 of each trial (K,)."""
        identity = torch.eye(self.value.weight.shape[1], device=self.value.weight.device)
        return VALUE_PENALTY * (self.value.weight.float() - identity).square().sum(dim=(1, 2))


def adapt(view: Encoder, options: Sequence[Options], generators: Sequence[torch.Generator]) -> None:
    sources, device = _sources(options[0]), parameter_device(view)
    strangers = [
        f"adapters: {source.task} was trained on other weights of {source.about['backbone']}"
        for source in sources
        if view.fingerprint is not None and source.about["backbone_fingerprint"] != view.fingerprint
    ]
    if strangers:
        raise FaultsError("method adapter_fusion", strangers)
    tensors = [load_file(source.folder / "adapter_model.safetensors") for source in sources]
    designs = [source.about["trial_config"]["method_options"] for source in sources]
    for index, layer in enumerate(view.layers):
        assert isinstance(layer, EncoderLayer)
        prefix = f"encoder.layers.{index}.feedforward_output.adapter."
        layer.feedforward_output.adapter = Fusion(
            view.shape.hidden_size,
            [{name.removeprefix(prefix): t for name, t in each.items() if name.startswith(prefix)} for each in tensors],
            [design.get("activation", "gelu_new") for design in designs],
            [design.get("scaling") or 1.0 for design in designs],
            generators,
            device,
            view.shape.attention_dropout,
        )


def trained_params(shape: EncoderShape, options: Options) -> int:
    """L (3D^2 + 2D), whatever the number of adapters: 21,252,096 on BERT-base."""
    return shape.num_layers * (3 * shape.hidden_size**2 + 2 * shape.hidden_size)


def stack_key(options: Options) -> Hashable:
    return (options.adapters, options.tasks)


def references(options: Options) -> dict[str, tuple[Path, ...]]:
    """The folders of the fused adapters."""
    return {"adapters": tuple(source.folder for source in _sources(options))}


def _sources(options: Options) -> list[_Source]:
    """The adapters to fuse, in the order of their tasks' names. Raises `FaultsError` with every reason against it."""
    if not options.adapters:
        rule = "must name the store whose exported adapters are fused, or a folder of such adapters"
        raise FaultsError("method adapter_fusion", [f"adapters: {rule}, but got none"])
    root = Path(options.adapters).expanduser()
    root = root / "adapters" if (root / "adapters").is_dir() else root
    found: dict[str, _Source] = {}
    for path in sorted(root.glob("*/adapter_config.json")):
        source = _read(path, path.stat().st_mtime_ns)
        if source.task not in found or _validation(source) > _validation(found[source.task]):
            found[source.task] = source
    wanted = sorted(found) if options.tasks == "all" else sorted({name.strip() for name in options.tasks.split(",")})
    faults = [
        f"tasks: {unknown_name('task with an exported adapter', name, found)}" for name in wanted if name not in found
    ]
    if len(wanted) < 2:
        rule = f"must be two at least, exported to {root} with `adaptune export STORE --task NAME`"
        faults.append(f"adapters: {rule}, but there are {len(wanted)}")
    if faults:
        raise FaultsError("method adapter_fusion", faults)
    return [found[name] for name in wanted]


@functools.lru_cache(maxsize=256)
def _read(path: Path, changed_at: int) -> _Source:
    about = json.loads(path.read_text(encoding="utf-8"))
    tensors = load_file(path.parent / "adapter_model.safetensors")
    downs = [t for name, t in tensors.items() if name.endswith("feedforward_output.adapter.down_proj")]
    return _Source(
        task=about["task"]["name"],
        folder=path.parent,
        about=about,
        num_layers=len(downs),
        width=downs[0].shape[0] if downs else 0,
    )


def _validation(source: _Source) -> float:
    scores = source.about["scores"]
    return float(scores.get(f"validation/{source.about['task']['metric']}", float("-inf")))
