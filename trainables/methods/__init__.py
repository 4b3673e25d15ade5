"""Transfer methods, one a file. A method says what is trained of an adapted encoder; `Method` is what its file holds.

To add one, write `trainables/methods/<name>.py`; sweeps find it by its file name, and the contract test of all
methods runs over it the moment it exists.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import sys
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast, get_args

import torch
from torch import Tensor

from trainables.config import Scalar, TrialConfig
from trainables.data.paths import check_file
from trainables.data.tokenized import TokenizedSplit
from trainables.discovery import load_plugin, plugin_names
from trainables.faults import FaultsError, unknown_name
from trainables.metrics import TaskKind
from trainables.nn.encoder import POOLINGS, Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.task import Task, TaskInfo

AUTO = "auto"


class Alone(enum.Enum):
    """The type of `ALONE`."""

    ALONE = "alone"


ALONE: Final = Alone.ALONE  # the stack key of trials that cannot share a pack


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFeatures:
    """What a method that fits its head is given of a split: features (N, D) and labels (N,), on the CPU.

    Features are float64. Labels are int64, classes of `num_classes`; or float64, and that is None: a number each, or
    (N, C), 1 for each of several labels that a row has and 0 for the others.
    `weights` (N,), float64, are how much the loss of each row counts, 1 in the mean; None where all count the same.
    """

    features: Tensor
    labels: Tensor
    num_classes: int | None
    weights: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHead:
    """A fitted head, which gives outputs (N, C) of features (N, D); float64."""

    weight: Tensor  # (D, C)
    bias: Tensor  # (C,)
    l2: float | None = None  # the strength of the penalty it was fitted with; None where there is no such thing

    def __call__(self, features: Tensor) -> Tensor:
        return torch.addmm(self.bias, features, self.weight)


# Of a head, its score on the validation rows by the task's metric, the higher the better, and its mean loss on them.
Judge = Callable[[LinearHead], tuple[float, float]]


class Options(Protocol):
    """The options of a method: a frozen keyword-only dataclass of JSON scalars with defaults."""

    __dataclass_fields__: typing.ClassVar[dict[str, Any]]

    def faults(self, shape: EncoderShape) -> list[str]:
        """Every fault of the values on an encoder of this shape, one sentence each."""
        ...


class Method(Protocol):
    """What a file in this folder holds. K trials with equal stack keys may share a pack.

    It may also hold

    - `KINDS`, the kinds of tasks it can train, where those are not all;
    - `ON_ANY_MODEL = True`, where it needs to know nothing of what is inside a backbone, and so works on those that
      transformers' own classes compute;
    - `USES_BACKBONE = False`, where what it computes does not depend on the backbone;
    - `ADDS_NOTHING = True`, where the adapted encoder has the backbone's parameters and no others, so that its size is
      the backbone's;
    - `GOES_ON = True`, where what it trains is the backbone's own layers, so that of tasks one after another it is one
      model that goes on, unless a sequence says otherwise. These three are read without importing the file;
    - `tokenize(task, options, max_length)`, a task's splits as it reads them, where that is not as the backbone does;
    - `REFERENCES`, the options that name files or folders, and `references(options)`, the paths that are read for each.
      What those hold identifies a trial, not where they lie; `contents(options)` says what that is, where it is not
      all their bytes;
    - `resolve(options)`, the same options with what they leave open pinned, as they are planned and trained;
    - an option `pooling`, "auto" by default: what the head reads, see `read_pooling`;
    - `backbone_faults(options, fingerprint)`, why they do not go with the weights of a backbone;
    - `trial_faults(options, shape, max_length, num_steps)`, why they do not go with the length or, where it is known,
      the number of steps of a trial;
    - `fit(train, options, judge)`, the linear head of a frozen encoder as it is fitted at once, where it is not trained
      step by step; `train` are `LabelledFeatures`, what comes back is a `LinearHead`. Such a method's key is `ALONE`;
    - `UNUSED`, the hyperparameters that decide nothing of what it trains. They have no part in a trial's identity,
      and a space that all methods share is for this one without them;
    - `starts_unchanged(options)`, whether what the head reads is, before the first step, what the backbone gives.
    """

    Options: type[Any]

    def adapt(self, view: Encoder, options: Sequence[Any], generators: Sequence[torch.Generator]) -> None:
        """Make a view's trained parts: replace modules or take trained copies, for the K trials of these options.

        What is trained requires gradients and is float32. It has a leading trial axis, but where the method packs no
        trials. A module sees K anew at each step from the tensors it finds. Initial values of trial k are drawn
        from generators[k] on the CPU, so that they are the same on every device.

        What stays frozen computes what the backbone does: below everything trained it is computed once for all trials
        of a backbone. A method that changes that without training it, such as one that leaves layers out, sets a body.
        """
        ...

    def trained_params(self, shape: EncoderShape, options: Any) -> int:
        """The closed formula of the trained parameters of one trial, head left out.

        `shape` is that of what is computed: it has a pooler only where the head reads that. What is recorded is counted
        from the tensors; the contract test of methods holds the two against each other.
        """
        ...

    def stack_key(self, options: Any) -> Hashable:
        """Equal for trials whose trained tensors stack: equal shapes, equal uses. `ALONE` where none ever do."""
        ...


def stack_key_of(method: str, options: Any) -> Hashable:
    """A method's stack key. Raises `TypeError` where it is None, as where a `return` has been forgotten."""
    key = get_method(method).stack_key(options)
    if key is None:
        raise TypeError(
            f"method {method}: stack_key returned None; it must return what is equal for trials that can share a "
            "pack, such as (), or trainables.methods.ALONE where trials cannot share one"
        )
    return key


def kind_faults(method: str, task: TaskInfo) -> list[str]:
    """The fault of a task of a kind that the method cannot train."""
    kinds = getattr(get_method(method), "KINDS", get_args(TaskKind))
    if task.kind in kinds:
        return []
    return [f"method {method}: trains tasks of kind {' or '.join(kinds)}, but {task.name} is of kind {task.kind}"]


def tokenized_by_method(task: Task, config: TrialConfig) -> Mapping[str, TokenizedSplit] | None:
    """The splits of a task as the trial's method reads them; None where it reads them as the backbone does."""
    tokenize = getattr(get_method(config.method), "tokenize", None)
    if tokenize is None:
        return None
    return cast(
        Mapping[str, TokenizedSplit],
        tokenize(task, parse_options(config.method, config.method_options), config.max_length),
    )


def uses_backbone(method: str) -> bool:
    """Whether what a method computes depends on the backbone."""
    return bool(getattr(get_method(method), "USES_BACKBONE", True))


def reads_word_pieces(method: str) -> bool:
    """Whether a method reads texts in the word pieces of the backbone."""
    return uses_backbone(method) and not hasattr(get_method(method), "tokenize")


def is_fitted(method: str) -> bool:
    """Whether a method fits its head at once, by all training rows, instead of training it step by step."""
    return hasattr(get_method(method), "fit")


def unused_hyperparameters(method: str) -> tuple[str, ...]:
    """The hyperparameters that decide nothing of what a method trains."""
    return tuple(getattr(get_method(method), "UNUSED", ()))


def used_alone(config: TrialConfig) -> TrialConfig:
    """The configuration with what its method does not use at its default, and at one epoch where it has none."""
    unused = unused_hyperparameters(config.method)
    resting = {name: getattr(TrialConfig, name) for name in unused} | (
        {"num_epochs": 1} if "num_epochs" in unused else {}
    )
    return dataclasses.replace(config, **resting)


def references_of(method: str, options: Mapping[str, Scalar]) -> dict[str, tuple[Path, ...]]:
    """The files and folders that options of a method name, by option."""
    references = getattr(get_method(method), "references", None)
    return {} if references is None else dict(references(parse_options(method, options)))


def reference_names(method: str) -> tuple[str, ...]:
    """The options of a method that name files or folders."""
    return tuple(getattr(get_method(method), "REFERENCES", ()))


def backbone_faults(method: str, options: Mapping[str, Scalar], fingerprint: str | None) -> list[str]:
    """Why a method's options do not go with the weights of a backbone, where they are known."""
    check = getattr(get_method(method), "backbone_faults", None)
    if check is None or fingerprint is None:
        return []
    return [f"{method}.{fault}" for fault in check(parse_options(method, options), fingerprint)]


def trial_faults(config: TrialConfig, shape: EncoderShape, num_steps: int | None) -> list[str]:
    """Why a method's options do not go with the length of a trial, or with its steps; None where these are unknown."""
    check = getattr(get_method(config.method), "trial_faults", None)
    if check is None:
        return []
    return list(check(parse_options(config.method, config.method_options), shape, config.max_length, num_steps))


def resolve(method: str, options: Any, shape: EncoderShape) -> Any:
    """A method's options with what they leave open pinned, on an encoder of this shape.

    Raises `FaultsError` where that cannot be found.
    """
    pin = getattr(get_method(method), "resolve", None)
    pinned = options if pin is None else pin(options)
    return dataclasses.replace(pinned, pooling=read_pooling(pinned, shape)) if hasattr(pinned, "pooling") else pinned


def read_pooling(options: Any, shape: EncoderShape) -> str:
    """What the head reads of the last layer: "first", "pooler" or "mean".

    "auto" is what the checkpoint was trained to be read by: what it declares, where it is one of
    sentence-transformers; the pooler where pre-training trained one, as BERT's did; else the first token. Where a
    backbone has no pooler, the first token stands in for it.
    """
    asked = getattr(options, "pooling", AUTO)
    pooling = shape.pooling if asked == AUTO else str(asked)
    return "first" if pooling == "pooler" and not shape.has_pooler else pooling


def _pooling_faults(options: Any) -> list[str]:
    pooling, known = getattr(options, "pooling", AUTO), (AUTO, *POOLINGS)
    return [] if pooling in known else [f"pooling: {unknown_name('pooling', pooling, known)}"]


def identity_of(method: str, options: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """What of a method's options decides a trial's outcome.

    Options at their defaults are left out, so that a method may get new ones without its old trials becoming others
    (a default that changes raises `OUTCOME_VERSION`). In place of a path stands a hash of what lies there.
    """
    parsed, defaults = parse_options(method, options), parse_options(method, {})
    names = [name for name in option_names(method) if getattr(parsed, name) != getattr(defaults, name)]
    found: dict[str, Scalar] = {name: getattr(parsed, name) for name in names}
    contents = getattr(get_method(method), "contents", None)
    if contents is not None:
        return found | contents(parsed)
    references = references_of(method, options).items()
    return found | {name: ",".join(content_hash(path) for path in paths) for name, paths in references}


def content_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes. Raises `FaultsError` where it cannot be read."""
    try:
        check_file(path)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except (OSError, ValueError) as error:
        raise FaultsError("file", [f"{path}: must be a file that can be read, but {error}"]) from None


def method_names() -> list[str]:
    """The known methods."""
    return plugin_names(sys.modules[__name__])


def get_method(name: str) -> Method:
    """A method by name. Raises `FaultsError` naming the known ones."""
    return cast(Method, load_plugin(sys.modules[__name__], "method", name))


def option_names(method: str) -> list[str]:
    """The options of a method, which a sweep may search."""
    return [f.name for f in dataclasses.fields(get_method(method).Options)]


def parse_options(method: str, values: Mapping[str, Scalar], shape: EncoderShape | None = None) -> Any:
    """A method's options from plain values, defaults filled in.

    Raises `FaultsError` with every unknown name, wrong type and broken rule (rules need the shape).
    """
    kind: Any = get_method(method).Options
    hints = _hints(kind)
    faults = [unknown_name(f"option of method {method}", key, hints) for key in values if key not in hints]
    faults += [
        f"{method}.{key}: must be {_type_name(hints[key])}, but got {value!r}"
        for key, value in values.items()
        if key in hints and not _fits(value, hints[key])
    ]
    sound = {k: v for k, v in values.items() if k in hints and _fits(v, hints[k])}
    options = kind(**{k: float(v) if _plain(hints[k]) is float and v is not None else v for k, v in sound.items()})
    if shape is not None and shape.library is not None:
        faults += _library_faults(method, shape)
    if shape is not None:  # of what is sound, so that a value's fault does not hide behind another's
        faults += [f"{method}.{fault}" for fault in [*options.faults(shape), *_pooling_faults(options)]]
    if faults:
        raise FaultsError(f"method {method}", faults)
    return options


def _library_faults(method: str, shape: EncoderShape) -> list[str]:
    """The fault of a method that changes layers, on a model whose layers are in other hands."""
    if not uses_backbone(method) or getattr(get_method(method), "ON_ANY_MODEL", False):
        return []
    able = [name for name in method_names() if getattr(get_method(name), "ON_ANY_MODEL", False)]
    rule = f"method {method} changes layers, which a {shape.model_type} has in transformers' own classes"
    return [f"{rule}; what works on it are {', '.join(able)}"]


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """The type of every option. Reading them takes longer than building a trial's options from them."""
    return typing.get_type_hints(kind)


def _plain(hint: Any) -> Any:
    """The type of an option's values other than null."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if kinds else hint


def _fits(value: object, hint: Any) -> bool:
    if value is None:
        return type(None) in get_args(hint)
    kind = _plain(hint)
    if kind is bool:
        return isinstance(value, bool)
    if kind is not float:
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names[_plain(hint)] + (" or null" if type(None) in get_args(hint) else "")
