"""TrialConfig: everything one training needs to know, frozen and checked. Needs neither torch nor Ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from trainables.faults import FaultsError, unknown_name

# Part of every trial's identity. Raise it when a change to this package alters what a trial computes, so that
# trials recorded by older code are trained again instead of being taken for equal.
OUTCOME_VERSION = 3

PRECISIONS = ("auto", "bf16", "fp32")
FEWEST_FOLDS, MOST_FOLDS = 2, 20
FOLDS_RULE = f"must be a whole number from {FEWEST_FOLDS} to {MOST_FOLDS}"
CLASS_WEIGHTS = ("none", "balanced")  # or a text that `parse_class_weights` reads

Scalar = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training at one configuration and seed, and on one fold where the task is cut into folds.

    Raises `FaultsError` on construction, with every fault of the given values. Method options are checked against
    the method itself by `trainables.estimate.preview`, since only the method knows them.
    """

    task: str  #: a name such as "toy/sentiment" or "glue/cola", or the path of a task folder
    backbone: str  #: a packaged encoder, a local path or a hub id
    method: str  #: name of the method
    method_options: Mapping[str, Scalar] = field(default_factory=dict)  #: options of the method by name
    learning_rate: float = 3e-4  #: peak of the schedule
    num_epochs: int = 3  #: passes over the training rows
    batch_size: int = 32  #: rows a step
    warmup_ratio: float = 0.1  #: share of all steps spent in linear warm-up
    weight_decay: float = 0.01  #: decoupled; matrices only, never biases or LayerNorms
    max_grad_norm: float = 1.0  #: global norm over the trained tensors of this trial
    max_length: int = 128  #: word pieces, special tokens included
    dropout: float | None = None  #: None is the backbone's own rates
    precision: str = "auto"  #: "auto" is bf16 products with fp32 master weights where the device has bf16
    class_weights: str = "none"  #: "none", "balanced", or weights by label such as "spam=5, ham=1"
    seed: int = 0  #: decides initial values, order of rows and dropout
    folds: int | None = None  #: how many the task's rows are cut into; None keeps the splits they have
    fold: int | None = None  #: the one that is validated on, counted from 0; the others are trained on

    def __post_init__(self) -> None:
        faults = [fault for name in HYPERPARAMETERS if (fault := check_hyperparameter(name, getattr(self, name)))]
        if fault := check_hyperparameter("seed", self.seed):
            faults.append(fault)
        faults += _fold_faults(self.folds, self.fold)
        for name in ("task", "backbone", "method"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                faults.append(f"{name}: must be a non-empty string, but got {value!r}")
        if not _are_options(self.method_options):
            rule = "must map names to text, numbers, true, false or null"
            faults.append(f"method_options: {rule}, but got {self.method_options!r}")
        if faults:
            raise FaultsError("trial configuration", faults)
        object.__setattr__(self, "method_options", MappingProxyType(dict(self.method_options)))
        for name, kind in HYPERPARAMETERS.items():
            if kind is float and getattr(self, name) is not None:
                object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one configuration

    def __reduce__(self) -> tuple[Any, ...]:
        return (TrialConfig.from_dict, (self.to_dict(),))

    def __hash__(self) -> int:
        return hash(tuple((k, tuple(sorted(v.items())) if k == "method_options" else v) for k, v in self.items()))

    def items(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without folds where there are none; `from_dict` gives an equal configuration back."""
        unset = [name for name in ("folds", "fold") if getattr(self, name) is None]
        return {k: dict(v) if k == "method_options" else v for k, v in self.items() if k not in unset}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrialConfig:
        """Raises `FaultsError` on unknown or missing keys as well as on faulty values."""
        known = {f.name for f in dataclasses.fields(TrialConfig)}
        faults = [unknown_name("key of a trial configuration", key, known) for key in values if key not in known]
        faults += [f"{key}: is required" for key in ("task", "backbone", "method") if key not in values]
        if faults:
            raise FaultsError("trial configuration", faults)
        return TrialConfig(**values)

    def hyperparameters(self) -> dict[str, Scalar]:
        """Everything that is searched or fixed by value, method options included, the seed not."""
        return {**{name: getattr(self, name) for name in HYPERPARAMETERS}, **self.method_options}


# Hyperparameters every method shares, with their type; all of them may be searched.
HYPERPARAMETERS: dict[str, type] = {
    "learning_rate": float,
    "num_epochs": int,
    "batch_size": int,
    "warmup_ratio": float,
    "weight_decay": float,
    "max_grad_norm": float,
    "max_length": int,
    "dropout": float,
    "precision": str,
    "class_weights": str,
}
# Those that came after trials had been recorded without them. At their default they have no part in a trial's identity.
ADDED_HYPERPARAMETERS = ("class_weights",)

# name -> (rule as a sentence, does the value keep it)
_RULES: dict[str, tuple[str, Any]] = {
    "learning_rate": ("must be a number > 0", lambda v: v > 0),
    "num_epochs": ("must be a whole number >= 1", lambda v: v >= 1),
    "batch_size": ("must be a whole number >= 1", lambda v: v >= 1),
    "warmup_ratio": ("must be a number in [0, 1)", lambda v: 0 <= v < 1),
    "weight_decay": ("must be a number >= 0", lambda v: v >= 0),
    "max_grad_norm": ("must be a number > 0", lambda v: v > 0),
    "max_length": ("must be a whole number >= 3", lambda v: v >= 3),
    "dropout": ("must be a number in [0, 1) or null", lambda v: 0 <= v < 1),
    "seed": ("must be a whole number in [0, 2**63)", lambda v: 0 <= v < 2**63),
}


def _are_options(options: object) -> bool:
    scalars = (str, int, float, bool, type(None))
    return isinstance(options, Mapping) and all(
        isinstance(key, str) and isinstance(value, scalars) for key, value in options.items()
    )


def check_hyperparameter(name: str, value: object) -> str | None:
    """The fault of one value of one shared hyperparameter (or of a seed), or None where it is good."""
    if name == "precision":
        return None if value in PRECISIONS else f"precision: {unknown_name('precision', value, PRECISIONS)}"
    if name == "class_weights":
        return _class_weights_fault(value)
    rule, keeps = _RULES[name]
    if name == "dropout" and value is None:
        return None
    whole = name == "seed" or HYPERPARAMETERS[name] is int
    is_number = isinstance(value, int) if whole else isinstance(value, int | float) and math.isfinite(value)
    if isinstance(value, bool) or not is_number or not keeps(value):
        return f"{name}: {rule}, but got {value!r}"
    return None


def is_number_of_folds(value: object) -> bool:
    """Whether a value can be how many folds a task is cut into; `FOLDS_RULE` says what can."""
    return isinstance(value, int) and not isinstance(value, bool) and FEWEST_FOLDS <= value <= MOST_FOLDS


def _fold_faults(folds: int | None, fold: int | None) -> list[str]:
    if folds is None and fold is None:
        return []
    number = folds if is_number_of_folds(folds) else None
    faults = [] if number is not None else [f"folds: {FOLDS_RULE}, beside a fold, but got {folds!r}"]
    is_whole = isinstance(fold, int) and not isinstance(fold, bool)
    if fold is None or not is_whole or not 0 <= fold < (number or MOST_FOLDS):
        faults.append(f"fold: must be a whole number from 0 to one less than folds, but got {fold!r}")
    return faults


def parse_class_weights(text: str) -> dict[str, float]:
    """The weights that "spam=5, ham=1" gives to labels. Raises `ValueError` where it is no list of such."""
    found: dict[str, float] = {}
    for part in text.split(","):
        label, _, number = (side.strip() for side in part.rpartition("="))
        weight = float(number)
        if not label or label in found or not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"{part.strip()!r} is no weight of another label")
        found[label] = weight
    return found


def _class_weights_fault(value: object) -> str | None:
    try:
        if isinstance(value, str) and (value in CLASS_WEIGHTS or parse_class_weights(value)):
            return None
    except ValueError:
        pass
    rule = 'must be none, balanced, or a text with a weight > 0 for each label that is named, such as "spam=5, ham=1"'
    return f"class_weights: {rule}, but got {value!r}"
