"""A saved adapter's folder, read as what a stranger may have written: checked before anything is done with it.

What is refused: a configuration that is no configuration, weights whose header is larger than any adapter's or tells
of other tensors than the file can hold, and files that options name but that are not in the folder itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from trainables import metrics
from trainables.config import TrialConfig
from trainables.data.paths import check_file
from trainables.data.paths import read_json as read_value
from trainables.faults import FaultsError, unknown_name
from trainables.inference.saved_names import CONFIG, FORMAT_VERSION, REFERENCES, WEIGHTS
from trainables.methods import reference_names
from trainables.metrics import TaskKind
from trainables.task import TaskInfo

MOST_CONFIG_BYTES = 2**20
MOST_HEADER_BYTES = 2**22
# Bytes of a number. Some tuners of peft save which places they train, as whole numbers.
_NUMBERS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, kw_only=True)
class SavedFolder:
    """What a folder says of a trained model, apart from the weights themselves."""

    folder: Path
    format_version: int
    config: TrialConfig  # with the files its options name where they lie in the folder
    task: TaskInfo
    scores: Mapping[str, float]
    backbone_fingerprint: str
    shapes: Mapping[str, tuple[int, ...]]  # of the tensors in its weights, by name

    def fault(self, *faults: str) -> FaultsError:
        """An error that names the folder."""
        return FaultsError(f"adapter {self.folder}", faults)

    def tensor_faults(self, own: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Where the weights are not those of a model with tensors of these shapes, a trial axis of one included."""
        if own.keys() != self.shapes.keys():
            odd = sorted(own.keys() ^ self.shapes.keys())
            return [f"{WEIGHTS} must hold the method's tensors, but differs in {', '.join(odd[:5])}"]
        wrong = [
            f"{name} is {_written(shape)} instead of {_written(own[name][1:] if own[name][:1] == (1,) else own[name])}"
            for name, shape in sorted(self.shapes.items())
            if shape not in (own[name], own[name][1:] if own[name][:1] == (1,) else own[name])
        ]
        return [f"{WEIGHTS} must have the method's sizes, but {'; '.join(wrong[:5])}"] if wrong else []


def read_folder(folder: Path) -> SavedFolder:
    """Read and check everything but the weights. Raises `FaultsError` with every fault of the folder."""

    def fault(*faults: str) -> FaultsError:
        return FaultsError(f"adapter {folder}", faults)

    try:
        about = read_json(folder / CONFIG)
        shapes = read_shapes(folder / WEIGHTS)
    except (OSError, ValueError, RecursionError) as error:
        raise fault(f"must hold {CONFIG} and {WEIGHTS}, but {error}") from None
    if (version := about.get("format_version")) not in (1, FORMAT_VERSION):
        raise fault(f"format_version must be 1 or {FORMAT_VERSION}, but got {version!r}")
    faults = [
        f"{CONFIG}: {key} is required"
        for key in ("trial_config", "task", "scores", "backbone_fingerprint")
        if key not in about
    ]
    if faults:
        raise fault(*faults)
    config = _config(about["trial_config"], folder, faults)
    task = task_of(about["task"], faults)
    scores = about["scores"]
    if not isinstance(scores, dict) or not all(isinstance(v, int | float) for v in scores.values()):
        faults.append(f"{CONFIG}: scores must map names to numbers, but got {shown(scores)}")
    if task is not None and shapes.get("head.bias", ())[-1:] != (task.num_labels,):
        came = f"its bias is {_written(shapes['head.bias'])}" if "head.bias" in shapes else "there is no head.bias"
        faults.append(f"{WEIGHTS}: the head must have the task's {task.num_labels} outputs, but {came}")
    expected = about.get("weights_sha256")
    if expected is not None and _sha256(folder / WEIGHTS) != expected:
        faults.append(f"{WEIGHTS} must be as it was written, but its content is another than {CONFIG} says")
    if faults or config is None or task is None:
        raise fault(*faults)
    return SavedFolder(
        folder=folder,
        format_version=version,
        config=config,
        task=task,
        scores=scores,
        backbone_fingerprint=str(about["backbone_fingerprint"]),
        shapes=shapes,
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file. Raises `OSError`, or `ValueError` where it is none, or too large for one."""
    about = read_value(path, most_bytes=MOST_CONFIG_BYTES)
    if not isinstance(about, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return about


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in the header of a safetensors file. Raises `ValueError` where it is none that an adapter has."""
    check_file(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else math.inf
        if length > min(MOST_HEADER_BYTES, size - 8):
            raise ValueError(f"{path.name} has a header that is longer than the file, or than any adapter's")
        header = json.loads(file.read(int(length)))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} has a header that is no JSON object")
    header.pop("__metadata__", None)
    shapes = {}
    for name, about in header.items():
        shape = about.get("shape") if isinstance(about, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{path.name} has a header without the shape of {name[:80]}")
        dtype = about.get("dtype")
        if not isinstance(dtype, str) or dtype not in _NUMBERS:
            raise ValueError(f"{path.name} holds {name[:80]} as {shown(dtype)}, not as numbers")
        if _NUMBERS[dtype] * math.prod(shape) > size:
            raise ValueError(f"{path.name} says that {name[:80]} is {_written(shape)}, which the file cannot hold")
        shapes[name] = tuple(shape)
    return shapes


def _config(values: Any, folder: Path, faults: list[str]) -> TrialConfig | None:
    """The configuration with the files and folders its options name where they were saved with it."""
    if not isinstance(values, dict):
        faults.append(f"{CONFIG}: trial_config must be a mapping, but got {shown(values)}")
        return None
    try:
        config = TrialConfig.from_dict(values)
        options = dict(config.method_options)
        for name in reference_names(config.method):
            if copies := sorted((folder / REFERENCES / name).glob("*")):
                faults += [f for path in copies for f in _outside(path, folder)]
                options[name] = ",".join(str(path) for path in copies)
            elif options.get(name):
                rule = f"{CONFIG}: the files that {config.method}.{name} names must be in {REFERENCES}/{name}"
                faults.append(f"{rule}, but there are none; nothing outside the folder is read")
        return dataclasses.replace(config, method_options=options)
    except FaultsError as error:
        faults += [f"{CONFIG}: {each}" for each in error.faults]
    return None


def _outside(path: Path, folder: Path) -> list[str]:
    """The faults of what lies at a path, where it leads out of the folder by links."""
    root = folder.resolve()
    within = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    led = [each for each in within if not each.resolve().is_relative_to(root)]
    return [f"{each.relative_to(folder)} must be a file of the folder, but is a link out of it" for each in led[:3]]


def task_of(values: Any, faults: list[str]) -> TaskInfo | None:
    """The task that a configuration describes; None where it has faults, which are added to the list."""
    rules = {
        "name": ("text", str),
        "kind": ("text", str),
        "pair": ("true or false", bool),
        "num_labels": ("a whole number", int),
        "label_names": ("a list", list),
        "metric": ("text", str),
        "source": ("text", str),
    }
    if not isinstance(values, dict):
        faults.append(f"{CONFIG}: task must be a mapping, but got {shown(values)}")
        return None
    found = [
        f"{CONFIG}: task.{name} must be {rule}, but got {shown(values.get(name))}"
        for name, (rule, kind) in rules.items()
        if type(values.get(name)) is not kind
    ]
    if not found and values["kind"] not in get_args(TaskKind):
        found.append(f"{CONFIG}: {unknown_name('kind of task', values['kind'], get_args(TaskKind))}")
    if not found and not values["num_labels"] >= 1:
        found.append(f"{CONFIG}: task.num_labels must be at least 1, but got {values['num_labels']}")
    if not found and values["label_names"] and len(values["label_names"]) != values["num_labels"]:
        came = f"{len(values['label_names'])} for {values['num_labels']}"
        found.append(f"{CONFIG}: task.label_names must be as many as labels, but are {came}")
    if not found and not all(isinstance(name, str) for name in values["label_names"]):
        found.append(f"{CONFIG}: task.label_names must be texts")
    if not found:
        try:
            metrics.get(values["metric"])
            return TaskInfo(**{**values, "label_names": tuple(values["label_names"])})
        except FaultsError as error:
            found += [f"{CONFIG}: {each}" for each in error.faults]
        except TypeError:
            found.append(f"{CONFIG}: task must have the keys {', '.join(rules)}, but got {', '.join(map(str, values))}")
    faults += found
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _written(shape: Any) -> str:
    return "x".join(map(str, shape)) or "a single number"


def shown(value: Any) -> str:
    """A value as a fault shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
