"""AdapterFusion (Pfeiffer et al. 2021), stage two: an attention over adapters that other trials have trained.

Stage one is trials of the method `adapter` with `placement: pfeiffer` and `train_layernorms: false`, one a task,
exported from their store. Here they are frozen like the backbone. In each layer, with h the feed-forward projection,
x its residual and z = LN(h + x), adapter n gives u_n without its skip, and

    LN(h + x + sum_n softmax_n(dropout(q . k_n)) v_n),   q = Q z + b_Q,   k_n = K u_n + b_K,   v_n = V u_n

is what the layer gives. Trained are Q, K, V of every layer and the head. V starts as the identity and is held near it
by 0.01 ||I - V||^2 in the loss, a term a layer.

Suffixes: N rows (word pieces), D hidden.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.data.paths import check_file, read_json
from trainables.faults import FaultsError, unknown_name
from trainables.methods import content_hash
from trainables.nn.dropout import Dropout
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.initialisation import parameter_device
from trainables.nn.layers import ACTIVATIONS, EncoderLayer
from trainables.nn.stacked_linear import StackedLinear

VALUE_PENALTY = 0.01
# Of a saved folder (`trainables.inference.predictor`, which this file cannot import since it imports the methods).
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PLACE = "feedforward_output.adapter"
_PREFIX = "encoder.layers.{index}." + _PLACE + "."
# What an adapter of stage one must be for this wiring, and what it is where its options do not say.
_REQUIRED: dict[str, tuple[Any, Any]] = {
    "placement": ("pfeiffer", "houlsby"),
    "train_layernorms": (False, True),
    "interaction": ("add", "add"),
    "norm": ("none", "none"),
    "depth": (1, 1),
    "layers": ("all", "all"),
}


REFERENCES = ("adapters",)


@dataclass(frozen=True, kw_only=True)
class Options:
    """`adapters` is the store of stage one, a folder of exported adapters, or adapters' own folders with "," between.

    `tasks` names those to fuse, or is "all". Of several adapters for one task the one with the best validation score is
    taken; those that are not of stage one's design have no part in it.
    """

    adapters: str = ""
    tasks: str = "all"
    pooling: str = "auto"

    def faults(self, shape: EncoderShape) -> list[str]:
        try:
            sources = _sources(self)
        except FaultsError as error:
            return list(error.faults)
        rule = f"must fit a backbone of {shape.num_layers} layers of width {shape.hidden_size}"
        return [
            f"adapters: {source.task} {rule}, but has {source.num_layers} of {source.width}"
            for source in sources
            if (source.width, source.num_layers) != (shape.hidden_size, shape.num_layers)
        ]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An exported adapter."""

    task: str
    folder: Path
    fingerprint: str  # of the backbone it was trained on
    activation: str
    scale: float
    validation_score: float
    num_layers: int
    width: int
    changed_at: int

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


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

    def forward(self, hidden_ND: Tensor, residual_ND: Tensor, layernorm: nn.Module, input_ND: Tensor) -> Tensor:
        """The feed-forward projection with the fused adapters' part added, before the residual."""
        normalised = layernorm(hidden_ND, residual_ND)
        outputs = [self._output(index, normalised) for index in range(len(self.scales))]
        query = self.query(normalised)
        scores = torch.stack(
            [(query * self.key(output)).sum(dim=-1, dtype=torch.float32) for output in outputs], dim=-1
        )
        shares = self.dropout(scores).softmax(dim=-1).to(hidden_ND.dtype)
        # Sum first, then V: it is linear, so N products become one.
        mixed = torch.stack(outputs, dim=-1) @ shares[..., None]
        return hidden_ND + self.value(mixed[..., 0])

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
    if faults := _strangers(sources, view.fingerprint):
        raise FaultsError("method adapter_fusion", faults)
    tensors = [load_file(source.weights) for source in sources]
    for index, layer in enumerate(view.layers):
        assert isinstance(layer, EncoderLayer)
        prefix = _PREFIX.format(index=index)
        layer.feedforward_output.adapter = Fusion(
            view.shape.hidden_size,
            [{name.removeprefix(prefix): t for name, t in each.items() if name.startswith(prefix)} for each in tensors],
            [source.activation for source in sources],
            [source.scale for source in sources],
            generators,
            device,
            view.shape.attention_dropout,
        )


def trained_params(shape: EncoderShape, options: Options) -> int:
    """L (3D^2 + 2D), whatever the number of adapters: 21,252,096 on BERT-base."""
    return shape.num_layers * (3 * shape.hidden_size**2 + 2 * shape.hidden_size)


def stack_key(options: Options) -> Hashable:
    """The adapters themselves: another one that is exported in between makes another pack."""
    if not options.adapters:
        return ""
    return tuple((str(source.folder), source.changed_at) for source in _sources(options))


def resolve(options: Options) -> Options:
    """The very adapters that are fused, so that one exported later does not get in between."""
    sources = _sources(options)
    folders = ",".join(str(source.folder.absolute()) for source in sources)
    return dataclasses.replace(options, adapters=folders, tasks=",".join(source.task for source in sources))


def references(options: Options) -> dict[str, tuple[Path, ...]]:
    """The folders of the fused adapters."""
    return {"adapters": tuple(source.folder for source in _sources(options))}


def contents(options: Options) -> dict[str, str]:
    """The adapters' weights and what is computed with them; their tasks' names are only where they are found."""
    sources = _sources(options)
    parts = [f"{content_hash(source.weights)} {source.activation} {source.scale}" for source in sources]
    return {"adapters": ",".join(parts), "tasks": ""}


def backbone_faults(options: Options, fingerprint: str) -> list[str]:
    return _strangers(_sources(options), fingerprint)


def _strangers(sources: Sequence[_Source], fingerprint: str | None) -> list[str]:
    return [
        f"adapters: {source.task} in {source.folder} was trained on other weights than the backbone's"
        for source in sources
        if fingerprint is not None and source.fingerprint != fingerprint
    ]


def _sources(options: Options) -> list[_Source]:
    """The adapters to fuse, in the order of their tasks' names. Raises `FaultsError` with every reason against it."""
    if not options.adapters:
        rule = "must name the store whose exported adapters are fused, or a folder of such adapters"
        raise FaultsError("method adapter_fusion", [f"adapters: {rule}, but got none"])
    found: dict[str, _Source] = {}
    unfit: dict[str, str] = {}  # task -> why its adapters cannot be fused
    try:
        for folder in _folders(options.adapters):
            about = _about(folder / CONFIG)
            if about is None:
                continue
            task, reason = str(about["task"]["name"]), _unfit(about)
            if reason is not None:
                unfit[task] = f"{reason} ({folder})"
                continue
            source = _read(folder, task, (folder / WEIGHTS).stat().st_mtime_ns)
            if task not in found or source.validation_score > found[task].validation_score:
                found[task] = source
    except (OSError, ValueError, SafetensorError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        fault = f"adapters: must be folders of exported adapters that can be read, but {_words_of(error)}"
        raise FaultsError("method adapter_fusion", [fault]) from None
    wanted = sorted(found) if options.tasks == "all" else sorted({name.strip() for name in options.tasks.split(",")})
    faults = []
    for name in wanted:
        if name in unfit and name not in found:
            rule = "must be of method adapter with placement pfeiffer and train_layernorms false"
            faults.append(f"adapters: {name} {rule}, but is {unfit[name]}")
        elif name not in found:
            faults.append(f"tasks: {unknown_name('task with an exported adapter', name, found)}")
    if len(wanted) < 2:
        fix = "exported with `adaptune export STORE --task NAME`, or by --trial"
        others = "".join(f"; {task} is {reason}" for task, reason in unfit.items() if task not in found)
        faults.append(f"adapters: must be two at least, {fix}, but {options.adapters} has {len(wanted)}{others}")
    if faults:
        raise FaultsError("method adapter_fusion", faults)
    return [found[name] for name in wanted]


def _words_of(error: Exception) -> str:
    """What is wrong of a folder whose files say other things than an export's, or no more than the library says."""
    if isinstance(error, LookupError | TypeError | AttributeError):
        return f"a {CONFIG} lacks or misstates {error}"
    return str(error)


def _folders(adapters: str) -> list[Path]:
    """Every folder that may hold an adapter."""
    if "," in adapters:
        return [Path(part.strip()).expanduser() for part in adapters.split(",")]
    root = Path(adapters).expanduser()
    root = root / "adapters" if (root / "adapters").is_dir() else root
    return sorted(path.parent for path in root.glob(f"*/{CONFIG}"))


def _about(path: Path) -> Mapping[str, Any] | None:
    """What a folder says of its adapter; None where it is another library's, of the same file names."""
    about = read_json(path)
    return about if isinstance(about, dict) and about.get("library") == "adaptune" else None


def _unfit(about: Mapping[str, Any]) -> str | None:
    """Why an adapter cannot be fused."""
    trial = about["trial_config"]
    if trial["method"] != "adapter":
        return f"of method {trial['method']}"
    options = trial["method_options"]
    wrong = [
        f"{name} {options.get(name, unsaid)!r}"
        for name, (required, unsaid) in _REQUIRED.items()
        if options.get(name, unsaid) != required
    ]
    return f"of {', '.join(wrong)}" if wrong else None


@functools.lru_cache(maxsize=256)
def _read(folder: Path, task: str, changed_at: int) -> _Source:
    about = read_json(folder / CONFIG)
    options = about["trial_config"]["method_options"]
    check_file(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        downs = [file.get_slice(name).get_shape() for name in file.keys() if name.endswith(f"{_PLACE}.down_proj")]  # noqa: SIM118 - no mapping
    return _Source(
        task=task,
        folder=folder,
        fingerprint=about["backbone_fingerprint"],
        activation=options.get("activation", "gelu_new"),
        scale=options.get("scaling") or 1.0,
        validation_score=float(about["scores"].get(f"validation/{about['task']['metric']}", float("-inf"))),
        num_layers=len(downs),
        width=downs[0][0] if downs else 0,
        changed_at=changed_at,
    )
