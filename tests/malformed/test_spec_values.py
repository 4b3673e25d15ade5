"""Sweeps with a wrong value somewhere, and sweeps with several: each is refused with every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HUGE = 10**400
DEEP: Any = 0
for _ in range(60):
    DEEP = [DEEP]


class Fault(NamedTuple):
    """A value put where a path leads, and what must be said of it. `REMOVED` takes away what is there."""

    path: tuple[str | int, ...]
    value: Any
    said: tuple[str, ...]


REMOVED = object()


def fault(path: str, value: Any, *said: str) -> Fault:
    return Fault(tuple(int(part) if part.isdigit() else part for part in path.split("/")), value, said)


UNKNOWN_KEYS = [
    fault("backbne", "minilm", "backbne: unknown key 'backbne'", "did you mean 'backbone'"),
    fault("task", [], "unknown key 'task'", "did you mean 'tasks'"),
    fault("method", {}, "unknown key 'method'", "did you mean 'methods'"),
    fault("seed", 0, "unknown key 'seed'", "did you mean 'seeds'"),
    *(
        fault("keep_predictions", value, "keep_predictions: must be true or false, but got")
        for value in (None, 0, 1, "no", "false", [], {})
    ),
    fault("early-stopping", "asha", "unknown key 'early-stopping'", "did you mean 'early_stopping'"),
    fault("", 1, "unknown key ''"),
    fault("größe", 1, "unknown key 'größe'"),
    fault("метод", {"a": [1]}, "unknown key 'метод'"),
    fault("🐢", None, "unknown key '🐢'"),
    fault("a" * 300, 1, "unknown key 'aaaa"),
    fault("null", None, "unknown key 'null'"),
    fault("__class__", "x", "unknown key '__class__'"),
    fault("search/algoritm", "grid", "search.algoritm: unknown key", "did you mean 'algorithm'"),
    fault("search/samples", 3, "search.samples: unknown key", "did you mean 'num_samples'"),
]

NAMES = [
    fault("name", REMOVED, "name: is required"),
    fault("name", None, "name: must be text, but got nothing"),
    *(
        fault("name", value, "name: must be text")
        for value in (3, 1.5, True, ["small"], {"a": 1}, HUGE, float("nan"), DEEP)
    ),
    *(
        fault("name", value, "name: must be letters, digits, dots, dashes and underscores")
        for value in ("", " ", "a b", "../up", "/etc", ".hidden", "-x", "a/b", "näme", "a\n", "a\x00b", "名前", "a:b")
    ),
]

BACKBONES = [
    fault("backbone", None, "backbone: must be text, but got nothing"),
    fault("backbone", "", "backbone: must not be empty"),
    *(fault("backbone", value, "backbone: must be text") for value in (7, {"name": "minilm"}, False)),
    fault("backbone", [], "backbone: must hold at least 1"),
    fault("backbone", ["minilm", 7], "backbone: must hold names or paths, but got 7"),
    fault("backbone", ["minilm", "minilm"], "backbone: every backbone must stand once"),
    fault("backbone", "./nowhere", "nowhere", "minilm"),
    fault("backbone", "/dev/null", "/dev/null"),
    fault("backbone", "a\x00b", "backbone"),
    fault("backbone", "x" * 5000, "backbone"),
]

TASKS = [
    fault("tasks", REMOVED, "tasks: is required"),
    fault("tasks", [], "tasks: must hold at least 1, but got []"),
    *(fault("tasks", value, "tasks: must be a list") for value in (None, 3, "toy/sentiment", {"toy/sentiment": 1})),
    *(fault("tasks/0", value, "tasks.0: must be text") for value in (None, 3, 2.5, True, [], ["toy/sentiment"], {})),
    fault("tasks/0", "", "tasks.0: must not be empty"),
    fault("tasks", ["toy/sentiment", "toy/sentiment"], "tasks: every entry must stand once", "'toy/sentiment'"),
    fault("tasks/0", "toy/sentimnt", "unknown task of family toy 'sentimnt'", "did you mean 'sentiment'"),
    fault("tasks/0", "toy/", "unknown task of family toy ''"),
    fault("tasks/0", "glue/colaa", "unknown task of family glue 'colaa'", "did you mean 'cola'"),
    fault("tasks/0", "no/such/folder", "no such folder", "no/such/folder"),
    fault("tasks/0", "/dev/null", "no such folder: /dev/null"),
    fault("tasks/0", "a\x00b", "task a"),
    fault("tasks/0", "x" * 5000, "no such folder"),
    fault("tasks/0", "~nobody-here/x", "no such folder"),
    fault("tasks/0", "hub/", "task hub/"),
]

SEEDS = [
    fault("seeds", [], "seeds: must hold at least 1, but got []"),
    *(fault("seeds", value, "seeds: must be a list") for value in (None, 3, "0", {"0": 1})),
    *(fault("seeds/0", value, "seeds.0: must be >= 0") for value in (-1, -(2**63))),
    *(fault("seeds/0", value, "seeds.0: must be < 9223372036854775808") for value in (2**63, HUGE)),
    *(fault("seeds/0", value, "seeds.0: must be a whole number") for value in (None, "0", 0.5, 1.0, True, [], {})),
    fault("seeds/0", float("nan"), "seeds.0: must be a whole number"),
    fault("seeds", [1, 1], "seeds: every entry must stand once, but 1 stands twice"),
]

SPACES = [
    *(fault("space", value, "space: must be a mapping") for value in (3, "x", [], ["learning_rate"], True)),
    fault("space/epochs", 3, "unknown hyperparameter 'space.epochs'", "num_epochs"),
    fault("space/learning_rat", 3, "did you mean 'learning_rate'"),
    fault("space/adapter_size", 3, "'space.adapter_size'", "options of a method stand below the method"),
    fault("space/num_epochs", 0, "space.num_epochs: must be a whole number >= 1, but got 0"),
    *(fault("space/num_epochs", value, "space.num_epochs: must be a whole") for value in (-1, 1.5, "3", True, None)),
    *(fault("space/num_epochs", value, "space.num_epochs: ") for value in (HUGE, 2**63, float("inf"), DEEP)),
    *(
        fault("space/learning_rate", value, "space.learning_rate: must be a number > 0")
        for value in (0, -1e-3, float("nan"), float("inf"), "1e-3", None, True)
    ),
    fault("space/batch_size", 0, "space.batch_size: must be a whole number >= 1, but got 0"),
    fault("space/warmup_ratio", 1, "space.warmup_ratio: must be a number in [0, 1), but got 1"),
    fault("space/weight_decay", -0.1, "space.weight_decay: must be a number >= 0"),
    fault("space/max_grad_norm", 0, "space.max_grad_norm: must be a number > 0"),
    fault("space/max_length", 2, "space.max_length: must be a whole number >= 3"),
    fault("space/dropout", 1.5, "space.dropout: must be a number in [0, 1) or null"),
    fault("space/precision", "fp8", "space.precision: unknown precision 'fp8'"),
    fault("space/precision", ["fp32"], "space.precision: must be a single value or a domain", "{grid: ['fp32']}"),
    *(
        fault("space/class_weights", value, "space.class_weights: must be none, balanced, or a text with a weight")
        for value in ("even", "0=0", "0=1, 0=2", "0=inf", "=1", None, 2)
    ),
    fault("space/learning_rate", {"grid": []}, "space.learning_rate: grid: must hold at least one value"),
    fault("space/learning_rate", {"grid": [1e-3, -1.0]}, "space.learning_rate: must be a number > 0, but got -1.0"),
    fault("space/learning_rate", {"grid": [1e-3, 1e-3]}, "every value must stand once, but 0.001 stands twice"),
    fault("space/learning_rate", {"grid": 1e-3}, "grid: must be a list of values, but got 0.001"),
    fault("space/learning_rate", {"grid": [[1e-3]]}, "grid: must hold single values"),
    fault("space/learning_rate", {"gird": [1e-3]}, "unknown domain 'gird'", "did you mean 'grid'"),
    fault("space/learning_rate", {}, "a domain must have exactly one key"),
    fault("space/learning_rate", {"grid": [1], "choice": [1]}, "a domain must have exactly one key"),
    fault("space/learning_rate", {"uniform": [1]}, "uniform: must be a pair [low, high]"),
    fault("space/learning_rate", {"uniform": [2, 1]}, "uniform: low <= high must hold"),
    fault("space/learning_rate", {"loguniform": [0, 1]}, "loguniform: low must be > 0"),
    fault("space/learning_rate", {"uniform": ["a", None]}, "uniform: both ends must be numbers"),
    fault("space/learning_rate", {"uniform": [0.1, float("inf")]}, "uniform: both ends must be numbers"),
    fault("space/learning_rate", {"uniform": [0, HUGE]}, "uniform: both ends must be numbers"),
    fault("space/num_epochs", {"randint": [1, 2.5]}, "randint: both ends must be whole numbers"),
    fault("space/num_epochs", {"randint": {"low": 1}}, "randint: must be a pair [low, high]"),
]

METHODS = [
    fault("methods", REMOVED, "methods: is required"),
    fault("methods", [], "methods: must hold at least 1, but got []"),
    *(fault("methods", value, "methods: must be a list") for value in (None, 3, "adapter", {"adapter": {}})),
    *(fault("methods/0", value, "methods.0: must be a mapping") for value in (None, 3, [], ["adapter"], True)),
    fault("methods/0", {}, "methods.0: an entry must name exactly one method, but got none"),
    fault("methods/0", {"adapter": {}, "lora": {}}, "must name exactly one method, but got adapter, lora"),
    fault("methods/0", {"method": 3, "space": {}}, "methods.0.method: must be text"),
    fault("methods/0", {"method": "adapter", "options": {}}, "must name exactly one method, but got method, options"),
    fault("methods/0", "", "methods.0.method: must not be empty"),
    fault("methods/0", {"adaptr": {}}, "unknown method 'adaptr'", "did you mean 'adapter'"),
    fault("methods/0", "../adapter", "unknown method '../adapter'"),
    fault("methods/0", "__init__", "unknown method '__init__'"),
    *(fault("methods/0", {"adapter": value}, "methods.adapter: must be a map") for value in (3, "x", [1], True)),
    fault("methods/0/adapter/adapter_siz", 2, "unknown option of method adapter 'adapter_siz'", "'adapter_size'"),
    *(fault("methods/0/adapter/adapter_size", value, "adapter_size") for value in (0, -3, 1.5, "x", None, True, HUGE)),
    fault("methods/0/adapter/init_std", float("nan"), "init_std"),
    fault("methods/0/adapter/placement", "houlsbi", "'houlsbi'", "houlsby"),
    fault("methods/0/adapter/activation", "sofplus", "'sofplus'"),
    fault("methods/0/adapter/layers", "0,99", "layers"),
    fault("methods/0/adapter/batch_size", 0, "adapter.batch_size: must be a whole number >= 1"),
    fault("methods/0/adapter/num_epochs", {"grid": [1, 0]}, "adapter.num_epochs: must be a whole number >= 1"),
    fault("methods/0", {"top_layers": {"num_layers": {"grid": [1, 99]}}}, "num_layers", "99"),
    fault("methods/0", {"adapter_fusion": {}}, "adapters"),
    fault("methods/0", {"lora": {"targets": "qury"}}, "'qury'", "query"),
]

FAULTS = [*UNKNOWN_KEYS, *NAMES, *BACKBONES, *TASKS, *SEEDS, *SPACES, *METHODS]


def _id(each: Fault) -> str:
    return f"{'/'.join(map(str, each.path))}={'removed' if each.value is REMOVED else repr(each.value)}"[:60]


CASES = {f"{_id(each)} {number}": each for number, each in enumerate(FAULTS)}


def spoil(values: dict[str, Any], faults: Sequence[Fault]) -> dict[str, Any]:
    for path, value, _ in faults:
        *way, last = path
        place: Any = values
        for part in way:
            place = place[part]
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return values


def write_python(path: Path, values: Any) -> str:
    """As a .py file, in which every value can be said; JSON and YAML know no NaN."""
    path.write_text(f"nan, inf = float('nan'), float('inf')\nSWEEP = {values!r}\n", encoding="utf-8")
    return str(path)


def test_a_wrong_value_is_refused(sound: Callable, call: Callable, home: Path, subtests: pytest.Subtests) -> None:
    for name, case in CASES.items():
        with subtests.test(name):
            sweep = write_python(home / "sweep.py", spoil(sound(), [case]))
            call("run", sweep).assert_refused("1 fault\n", *case.said)
            assert not (home / "sweeps").exists()


def are_apart(faults: Sequence[Fault]) -> bool:
    """Whether no fault is put where another one takes the place away."""
    paths = [each.path for each in faults]
    return not any(one is not other and other[: len(one)] == one for one in paths for other in paths)


# A backbone that is not there cannot tell how many layers it has; other faults do not hide each other.
TELLING = [each for each in FAULTS if "layers" not in str(each.said)]


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    faults=st.lists(st.sampled_from(TELLING), min_size=2, max_size=5, unique_by=lambda f: f.path).filter(are_apart),
    command=st.sampled_from(["run", "plan"]),
)
def test_every_one_of_several_faults_is_named(
    faults: list[Fault], command: str, sound: Callable, call: Callable, home: Path
) -> None:
    sweep = write_python(home / "sweep.py", spoil(sound(), faults))
    ended = call(command, sweep)
    ended.assert_refused(*(part for each in faults for part in each.said))
    assert ended.err.count("\n  - ") >= len(faults)
    assert not (home / "sweeps").exists()


def test_the_same_faults_are_named_whatever_the_file_is(sound: Callable, call: Callable, home: Path) -> None:
    values = spoil(sound(), [SEEDS[6], TASKS[14], METHODS[12], SPACES[8]])
    text = json.dumps(values)
    messages = set()
    for name, form in (("sweep.yaml", text), ("sweep.yml", text), ("sweep.json", text), ("sweep.py", f"SWEEP={text}")):
        (home / name).write_text(form.replace("null", "None") if name.endswith("py") else form, encoding="utf-8")
        messages.add(call("run", str(home / name)).err)
    assert len(messages) == 1
