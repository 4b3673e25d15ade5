"""SweepSpec: what was asked. Read from a .py or .yaml file, checked for shape, stored as JSON.

Names (tasks, methods, options) are checked when the spec is planned, since only the plug-ins know them.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from orchestrator.secrets import without_secrets
from orchestrator.spec.backbones import parse_backbones
from orchestrator.spec.early_stopping import NONE, parse_rule, rule_to_json
from orchestrator.spec.space import parse_domain
from trainables.config import FOLDS_RULE, HYPERPARAMETERS, is_number_of_folds
from trainables.faults import FaultsError, unknown_name


class SweepSpecError(FaultsError):
    """A sweep cannot be run as asked; `faults` holds every reason."""


KEEP = ("best", "all", "none")
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # names a folder
MOST_OF_NAME = 200  # characters; a file system takes 255 bytes, and what is written beside it adds some


def _domain(value: Any) -> Any:
    try:
        return parse_domain(value)
    except FaultsError as error:
        raise ValueError("; ".join(error.faults)) from None


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [v for i, v in enumerate(values) if v in values[:i]]:
        raise ValueError(f"every entry must stand once, but {twice[0]!r} stands twice")
    return values


def _name(value: str) -> str:
    if not SWEEP_NAME.fullmatch(value):
        raise ValueError(
            f"must be letters, digits, dots, dashes and underscores (it names a folder), but got {value!r}"
        )
    if len(value) > MOST_OF_NAME:
        raise ValueError(f"must have at most {MOST_OF_NAME} characters (it names a folder), but has {len(value)}")
    return value


def _kept(value: str) -> str:
    if value not in KEEP:
        raise ValueError(unknown_name("choice of trials whose weights to keep", value, KEEP))
    return value


def _folds(value: int) -> int:
    if not is_number_of_folds(value):
        raise ValueError(f"{FOLDS_RULE}, but got {value!r}")
    return value


def registered(value: str) -> str:
    """A name of MLflow's model registry. Raises `ValueError` where it cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]*", value):
        raise ValueError(
            f"must be letters, digits, spaces, dots, dashes and underscores (MLflow's rule), but got {value!r}"
        )
    return value


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _rule(value: Any) -> Any:
    try:
        return parse_rule(value)
    except FaultsError as error:
        raise ValueError("; ".join(error.faults)) from None


def _backbones(value: Any) -> Any:
    try:
        return parse_backbones(value)
    except FaultsError as error:
        raise ValueError("; ".join(error.faults)) from None


SpaceEntry = Annotated[
    Any, BeforeValidator(_domain), PlainSerializer(lambda v: v.to_json() if hasattr(v, "to_json") else v)
]
Space = dict[str, SpaceEntry]


class MethodSpec(BaseModel):
    """One entry of `methods`: the name of a `method` and the `space` of its options, each a value or a domain.

    Hyperparameters in the space hold for this entry, in place of the sweep's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Annotated[str, Field(min_length=1)]
    space: Annotated[Space, BeforeValidator(_or_empty)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_sweep_file(cls, value: Any) -> Any:
        return long_form(value)


def long_form(entry: Any) -> Any:
    """An entry of `methods` as `{method: NAME, space: {...}}`, whatever form of a sweep file it has.

    The forms are `{adapter: {adapter_size: ...}}` and, without options, plain `layernorm`; anything else is left alone.
    """
    if isinstance(entry, str):
        return {"method": entry, "space": {}}
    if isinstance(entry, Mapping) and len(entry) == 1 and "method" not in entry:
        ((method, space),) = entry.items()
        return {"method": str(method), "space": {} if space is None else space}
    if isinstance(entry, Mapping) and ("method" not in entry or set(entry) - {"method", "space"}):
        raise ValueError(f"an entry must name exactly one method, but got {_named(entry)}")
    return entry


def _named(entry: Mapping[Any, Any]) -> str:
    """The keys of an entry of `methods`, with the remedy where options stand beside their method and not below it."""
    keys = list(map(str, entry))
    if len(keys) > 1 and entry[next(iter(entry))] is None:
        return f"{', '.join(keys)}; indent the options of {keys[0]} below it, or write {keys[0]}: {{{keys[1]}: ...}}"
    return ", ".join(keys) or "none"


Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]


class SearchSpec(BaseModel):
    """How the search algorithm of this name chooses configurations from the declared domains.

    Args:
        num_samples: configurations to try per task and entry of `methods`. Only `grid` goes without: it tries all.
        max_concurrent_trials: trials under way at the same time; None is as many as the engines can train together.
        seed: of what the search draws at random; trials have seeds of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Annotated[str, AfterValidator(lambda name: "cmaes" if name == "cma-es" else name)] = "grid"
    num_samples: Count | None = None
    max_concurrent_trials: Count | None = None
    seed: Seed = 0


class NonInferioritySpec(BaseModel):
    """The claim that methods are at most so much worse than another, declared before anything is trained.

    Args:
        reference: the method of the sweep that the others are held against, such as full_finetuning.
        margin: by how much a method may be worse and still count as good as the reference, in the metric's unit: 0.01
            is one point of accuracy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: Annotated[str, Field(min_length=1)]
    margin: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]


class _Declaration(BaseModel):
    """A model whose faults, where a script makes one, are told as those of a sweep file are."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SweepSpecError(f"sweep {values.get('name', 'unnamed')}", spec_faults(error)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # `model_validate` tells faults as pydantic does


class SweepSpec(_Declaration):
    """A declared sweep: tasks x methods x hyperparameters x seeds.

    Args:
        name: names the store's folder and the MLflow experiment; letters, digits, dots, dashes and underscores.
        tasks: folders or names of tasks.
        methods: each a `MethodSpec`, or an entry as in a sweep file.
        backbone: a packaged encoder, a local folder, or a hub id; `minilm` by default. A list of these, or a grid of
            them, adapts each one: the sweep is tasks x backbones x methods x hyperparameters x seeds.
        seeds: every configuration is trained once per seed; seeds are never searched.
        folds: into how many the rows of each task are cut, 2 to 20, unless its task.json says it; every configuration
            is then trained once per seed and fold. None leaves tasks the splits they have.
        space: hyperparameters that all methods share, each a value or a domain.
        search: how configurations are chosen: a `SearchSpec`, or a mapping of its shape.
        early_stopping: `none`, `asha`, `hyperband`, `median`, `patience`, or a rule with settings, such as
            `Asha(grace_period=2)`.
        keep: of which completed trials the store keeps what they have trained: `best`, of each task and method those
            that `adaptune export` would choose; `all`; or `none`.
        keep_predictions: whether the store keeps what each completed trial predicts of every validation and test row.
        log_models: whether MLflow gets the kept weights of winners as models, once the sweep has ended.
        register_model: a name in MLflow's model registry, of which the model to ship becomes a version: of each task
            the one that `adaptune export` would choose, as NAME-TASK where there are several tasks.
        non_inferiority: a `NonInferioritySpec`, or a mapping of its shape; `Results.compare` judges by it. It says how
            results are read and nothing about how trials are trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_name)]
    backbone: Annotated[str | tuple[str, ...], BeforeValidator(_backbones)] = "minilm"
    tasks: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), AfterValidator(_distinct)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)] = (0, 1, 2)
    folds: Annotated[int, Field(strict=True), AfterValidator(_folds)] | None = None
    space: Annotated[Space, BeforeValidator(_or_empty)] = Field(default_factory=dict)
    methods: Annotated[tuple[MethodSpec, ...], Field(min_length=1)]
    search: SearchSpec = SearchSpec()
    early_stopping: Annotated[Any, BeforeValidator(_rule), PlainSerializer(rule_to_json)] = NONE
    keep: Annotated[str, AfterValidator(_kept)] = "best"
    keep_predictions: Annotated[bool, Field(strict=True)] = True
    log_models: Annotated[bool, Field(strict=True)] = True
    register_model: Annotated[str, AfterValidator(registered)] | None = None
    non_inferiority: NonInferioritySpec | None = None

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbones, be it one or several."""
        return (self.backbone,) if isinstance(self.backbone, str) else self.backbone

    def to_json(self) -> str:
        """The sweep with its defaults filled in, as JSON in the shape of a sweep file."""
        plain = self.model_dump(mode="json")
        plain["methods"] = [{entry["method"]: entry["space"]} for entry in plain["methods"]]
        for name in ("folds", "log_models", "register_model", "non_inferiority"):
            if plain[name] == type(self).model_fields[name].default:  # so that the JSON is what it always was
                del plain[name]
        return json.dumps(plain, indent=2) + "\n"


def parse_spec(values: Any) -> SweepSpec:
    """Read a spec from plain values. Raises `SweepSpecError` holding every fault of its shape."""
    spec, faults = parse_leniently(values)
    if faults:
        raise SweepSpecError(f"sweep {spec.name}", faults)
    return spec


# Stand in for required parts that are missing or faulty, so that the rest can still be checked. Nothing of theirs may
# be at fault, since nobody asked for it: the method has no option that does not go with some backbone.
_PLACEHOLDERS: dict[str, Any] = {"name": "unnamed", "tasks": ["toy/sentiment"], "methods": ["linear_probe"]}


def parse_leniently(values: Any) -> tuple[SweepSpec, list[str]]:
    """Read what is sound of a spec, with the faults of the rest.

    Faulty parts are dropped (required ones replaced by placeholders) until what remains is a spec. It serves only
    to check the sound parts against the plug-ins, so that the user hears of every fault at once.
    """
    if isinstance(values, SweepSpec):
        return values, without_secrets("", values.model_dump(mode="json"))[1]
    if not isinstance(values, Mapping):
        keys = ", ".join(SweepSpec.model_fields)
        came = "nothing" if values is None else repr(values)
        return SweepSpec(**_PLACEHOLDERS), [f"a sweep must be a mapping with the keys {keys}, but got {came}"]
    try:
        sound = plain_copy(values)
    except RecursionError:
        return SweepSpec(**_PLACEHOLDERS), ["a sweep must not contain itself"]
    sound, faults = without_secrets("", sound)
    while True:
        try:
            spec = SweepSpec.model_validate(sound)
            # Once more, for what a .py file may hold that is no plain value yet, such as a grid of backbones.
            hidden = without_secrets("", spec.model_dump(mode="json"))[1]
            return spec, [*faults, *(fault for fault in hidden if fault not in faults)]
        except ValidationError as error:
            errors = _errors(error)
        faults += [sentence for fault in errors if (sentence := _sentence(fault, sound)) not in faults]
        # From the end, so that dropping an entry of a list does not move the next one.
        for loc in sorted({fault["loc"] for fault in errors}, key=lambda loc: [str(p).zfill(6) for p in loc])[::-1]:
            names_no_method = loc[:1] == ("methods",) and loc[2:] == ("method",)
            # What is left of such an entry would read as another, and half a claim as one that lacks a part.
            _drop(sound, loc[:2] if names_no_method else loc[:1] if loc[:1] == ("non_inferiority",) else loc)
        for key, placeholder in _PLACEHOLDERS.items():
            if not sound.get(key):
                sound[key] = placeholder
                if key == "methods":  # a claim about a method of theirs is none about the one that stands in
                    sound.pop("non_inferiority", None)


def spec_faults(error: ValidationError) -> list[str]:
    """The sentences of a validation error raised where a .py file builds its own `SweepSpec`."""
    return [_sentence(fault, {}) for fault in _errors(error)]


def _errors(error: ValidationError) -> list[Any]:
    """Without those that follow from others: pydantic calls a sequence too short once its entries are faulty."""
    return [
        fault
        for fault in error.errors()
        if fault["type"] != "too_short" or len(fault["input"]) < fault["ctx"]["min_length"]
    ]


def plain_copy(value: Any) -> Any:
    """A copy to change: mappings as dicts with text for keys, sequences as lists, entries of `methods` in long form."""
    copy = _plain(value)
    if isinstance(copy, dict) and isinstance(copy.get("methods"), list):
        copy["methods"] = [_long_form_if_sound(entry) for entry in copy["methods"]]
    return copy


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    # Sets and iterators too: those of a .py file, which could be read only once.
    return [_plain(item) for item in value] if isinstance(value, list | tuple | Set | Iterator) else value


def _long_form_if_sound(entry: Any) -> Any:
    try:
        return long_form(entry)
    except ValueError:
        return entry


def _drop(container: Any, loc: Sequence[Any]) -> None:
    """Remove the deepest part of `container` that `loc` reaches."""
    head, *rest = loc or ("",)
    inside = (isinstance(container, dict) and head in container) or (
        isinstance(container, list) and isinstance(head, int) and head < len(container)
    )
    if not inside:
        return
    child = container[head]
    reachable = rest and (
        (isinstance(child, dict) and rest[0] in child)
        or (isinstance(child, list) and isinstance(rest[0], int) and rest[0] < len(child))
    )
    if reachable:
        _drop(child, rest)
    if not reachable or child == []:  # a list that is empty only now is no fault of its own
        del container[head]


# What pydantic calls a fault -> our rule; its context fills the braces.
_RULES = {
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "too_short": "must hold at least {min_length}",
    "float_type": "must be a number",
    "finite_number": "must be a number that is not infinite",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
}


def _sentence(fault: Any, values: Mapping[str, Any]) -> str:
    path = list(fault["loc"])
    if len(path) >= 2 and path[0] == "methods" and isinstance(path[1], int):
        entries = values.get("methods")
        entry = entries[path[1]] if isinstance(entries, list) and path[1] < len(entries) else None
        name = entry.get("method") if isinstance(entry, dict) else None
        path[1] = name if isinstance(name, str) and name else path[1]
        path = [part for part in path if part != "space"]
    where = ".".join(map(str, path)) or "sweep"
    if fault["type"] == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {
            "search": SearchSpec,
            "methods": MethodSpec,
            "non_inferiority": NonInferioritySpec,
        }
        model = models.get(str(path[0]), SweepSpec)
        known = model.model_fields
        unknown = unknown_key(str(path[0]), known) if len(path) == 1 else unknown_name("key", path[-1], known)
        return f"{where}: {unknown}"
    if fault["type"] == "missing":
        return f"{where}: is required"
    if fault["type"] == "value_error":
        return f"{where}: {fault['msg'].removeprefix('Value error, ')}"
    rule = _RULES.get(fault["type"], f"{fault['msg'][0].lower()}{fault['msg'][1:]}").format(**fault.get("ctx", {}))
    return f"{where}: {rule}, but got {_shortened(fault['input'])}{_remedy(where, fault)}"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The fault of a key that a sweep does not have. What belongs a level below is often written beside `space`."""
    fault = unknown_name("key", key, known)
    if "; did you mean" in fault:
        return fault
    near = difflib.get_close_matches(key, HYPERPARAMETERS, n=1, cutoff=0.8)
    if near:
        return fault.replace(". Known:", f"; did you mean {near[0]!r} in space? Known:", 1)
    return f"{fault} (hyperparameters stand in space, options of a method below the method)"


def _remedy(where: str, fault: Any) -> str:
    """How to write what came in another shape, where that is plain."""
    given = fault["input"]
    if fault["type"] == "tuple_type":
        if where == "methods" and isinstance(given, Mapping) and given:
            return "; begin the line of each method with a dash"
        if where == "seeds" and type(given) is int and given >= 0:
            seeds = str(list(range(given))) if given < 10 else f"[0, 1, ..., {given - 1}]"
            several = f" for the seed {given}, {seeds} for {given} seeds" if given > 1 else ""
            return f"; write [{given}]{several}"
        if where in ("tasks", "methods") and isinstance(given, str) and given:
            return f"; write [{_shortened(given)[1:-1]}]"
    if where == "search" and isinstance(given, str):
        return f"; write {{algorithm: {given}}}"
    return ""


def _shortened(value: Any, length: int = 200) -> str:
    if value is None:
        return "nothing"
    try:
        text = repr(value)
    except Exception:  # of an object of the user's own, in a .py file
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= length else f"{text[:length]}..."
