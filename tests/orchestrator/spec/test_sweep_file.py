"""Sweep files as users write them: Python, YAML, JSON and the names of packaged ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import search_spaces.quickstart
from orchestrator.spec.early_stopping import Asha, Patience
from orchestrator.spec.space import Grid
from orchestrator.spec.spec import SweepSpec, SweepSpecError, parse_spec
from orchestrator.spec.sweep_file import apply_overrides, read_sweep

YAML = """
name: mine
tasks: [toy/sentiment]
space:
  learning_rate: {grid: [3e-4, 1e-3]}
  dropout: null
methods:
  - adapter: {adapter_size: {grid: [2, 8]}}
  - layernorm
"""


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return str(folder / name)


def faults_of(reference: str) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        parse_spec(read_sweep(reference))
    return refusal.value.faults


def test_yaml_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    spec = parse_spec(read_sweep(write(tmp_path, "sweep.yaml", YAML)))
    assert spec.space == {"learning_rate": Grid([0.0003, 0.001]), "dropout": None}


def test_a_packaged_sweep_is_read_by_name_whatever_folder_has_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert parse_spec(read_sweep("quickstart")) == search_spaces.quickstart.SWEEP


def test_all_kinds_of_file_give_the_same_spec(tmp_path: Path) -> None:
    spec = parse_spec(read_sweep(write(tmp_path, "sweep.yml", YAML)))
    space = 'space={"learning_rate": Grid([3e-4, 1e-3]), "dropout": None}'
    python = f"""
        from orchestrator.spec.space import Grid
        from orchestrator.spec.spec import SweepSpec
        SWEEP = SweepSpec(name="mine", tasks=["toy/sentiment"], {space},
                          methods=[{{"adapter": {{"adapter_size": Grid([2, 8])}}}}, "layernorm"])
    """
    mapping = f"""
        from orchestrator.spec.space import Grid
        SWEEP = dict(name="mine", tasks=("toy/sentiment",), {space},
                     methods=[{{"adapter": {{"adapter_size": Grid((2, 8))}}}}, "layernorm"])
    """
    for name, text in (("a.py", python), ("b.py", mapping), ("c.json", spec.to_json())):
        assert parse_spec(read_sweep(write(tmp_path, name, text))) == spec


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("empty.yaml", "", "a sweep must be a mapping with the keys name, backbone"),
        ("comment.yaml", "# nothing", "a sweep must be a mapping"),
        ("syntax.yaml", "name: [a", "must be readable as YAML, but line 1, column 9: expected ',' or ']'"),
        ("twice.yaml", "name: a\nname: b", 'must be readable as YAML, but line 2, column 1: duplicate key "name"'),
        ("columns.yaml", "methods:\n  - adapter\n - lora", "line 3, column 2: expected <block end>"),
        ("column.yaml", "name: a\n  tasks: [b]", "line 2, column 8: mapping values are not allowed here"),
        ("tab.yaml", "tasks:\n\t- a", "; indent with spaces, not with tabs"),
        ("date.yaml", "name: 2024-13-45", "must be readable as YAML, but"),
        ("tag.yaml", "name: !!python/object:os.system {}", "must be readable as YAML, but"),
        ("key.yaml", "[1, 2]: 3", "name: is required"),
        ("knot.yaml", "name: &a [*a]", "a sweep must not contain itself"),
        ("deep.yaml", "[" * 1000, "must be readable as YAML, but"),
        ("list.yaml", "- name: a", "a sweep must be a mapping"),
        ("broken.json", '{"name": ', "must be readable as JSON, but"),
        ("raises.py", "x = 1\n1 / 0", "must run as Python, but raised in line 2 ZeroDivisionError: division by zero"),
        ("exits.py", "raise SystemExit(3)", "must run as Python, but raised in line 1 SystemExit: 3"),
        ("syntax.py", "def", "must run as Python, but raised SyntaxError"),
        ("without.py", "SWEPE = {}", "must hold a constant SWEEP, a SweepSpec or a mapping"),
        ("number.py", "SWEEP = 3", "a sweep must be a mapping with the keys name, backbone"),
        ("grid.py", "from orchestrator.spec.space import Grid\nSWEEP = Grid([])", "grid: must hold at least one value"),
        (
            "spec.py",
            "from orchestrator.spec import SweepSpec\nSWEEP = SweepSpec(name='a', tasks=[], methods=['layernorm'])",
            "tasks: must hold at least 1, but got []",
        ),
        (
            "sweep.toml",
            "name = 'a'",
            "unknown kind of sweep file '.toml'; did you mean '.yml'? Known: .json, .py, .yaml, .yml",
        ),
    ],
)
def test_a_faulty_file_is_refused_with_the_rule(tmp_path: Path, name: str, text: str, fault: str) -> None:
    assert fault in faults_of(write(tmp_path, name, text))[0]


@pytest.mark.parametrize("reference", ["quikstart", "quikstart.yaml", "no/such.py", "", "a\0b", "x" * 5000])
def test_a_sweep_that_is_not_there_is_refused_with_the_packaged_ones(reference: str) -> None:
    (fault,) = faults_of(reference)
    assert fault.startswith("a sweep must be")
    if reference == "quikstart":
        assert "did you mean 'quickstart'? Packaged: figure4, figure6," in fault


def test_a_folder_in_place_of_a_sweep_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (fault,) = faults_of(str(tmp_path))
    assert "is a folder; a sweep lists task folders in `tasks`" in fault
    (tmp_path / "spec.json").write_text("{}", encoding="utf-8")
    (fault,) = faults_of(str(tmp_path))
    assert f"is the store of one; `adaptune resume {tmp_path}` goes on with it" in fault


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_bytes(b"name: \xff\xfe")
    (tmp_path / "sweep.py").write_bytes(b"SWEEP = '\xff\xfe'")
    assert "must be readable as YAML" in faults_of(str(tmp_path / "sweep.yaml"))[0]
    assert "must run as Python" in faults_of(str(tmp_path / "sweep.py"))[0]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab:-{}[]&*!? \n\t'\"#|>%@`0123456789.", max_size=40))
def test_any_text_is_a_spec_or_faults(tmp_path: Path, text: str) -> None:
    assert faults_of(write(tmp_path, "any.yaml", text))


class TestOverrides:
    def test_every_place_can_be_set(self, tmp_path: Path) -> None:
        overrides = [
            "name=other",
            "seeds=[0]",
            "num_epochs=1",
            "space.learning_rate={loguniform: [1e-5, 1e-3]}",
            "methods.adapter.adapter_size=16",
            "methods.layernorm.learning_rate=3e-3",
            "search.algorithm=random",
            "search.num_samples=5",
        ]
        spec = parse_spec(read_sweep(write(tmp_path, "sweep.yaml", YAML), overrides))
        assert (spec.name, spec.seeds, spec.search.num_samples) == ("other", (0,), 5)
        assert spec.space["num_epochs"] == 1
        assert spec.space["learning_rate"].to_json() == {"loguniform": [1e-5, 1e-3]}
        assert [entry.space for entry in spec.methods] == [{"adapter_size": 16}, {"learning_rate": 0.003}]

    def test_a_spec_built_in_python_can_be_set_too_and_stays_as_it_was(self) -> None:
        before = search_spaces.quickstart.SWEEP.to_json()
        changed = parse_spec(read_sweep("quickstart", ["seeds=[7]", "methods.adapter.adapter_size.grid=[3]"]))
        assert isinstance(changed, SweepSpec)
        assert changed.seeds == (7,)
        assert changed.methods[0].space["adapter_size"] == Grid([3])
        assert search_spaces.quickstart.SWEEP.to_json() == before

    def test_a_methods_whole_space_can_be_replaced_in_each_of_its_entries(self) -> None:
        values = {"methods": [{"adapter": {"adapter_size": 1}}, "layernorm", {"adapter": {"adapter_size": 2}}]}
        changed = apply_overrides(values, ["methods.adapter={adapter_size: 4}"])
        spaces = [entry["space"] for entry in changed["methods"]]
        assert spaces == [{"adapter_size": 4}, {}, {"adapter_size": 4}]

    def test_a_hyperparameter_that_no_method_would_take_is_refused(self) -> None:
        values = {"methods": [{"adapter": {"learning_rate": 1e-3}}, {"lora": {"learning_rate": 1e-4}}]}
        fault = (
            "--set learning_rate: would change nothing, since every method has its own learning_rate; "
            "set methods.adapter.learning_rate, methods.lora.learning_rate"
        )
        with pytest.raises(SweepSpecError) as error:
            apply_overrides(values, ["learning_rate=1"])
        assert error.value.faults == (fault,)
        values["methods"].append({"layernorm": {}})
        assert apply_overrides(values, ["learning_rate=1"])["space"] == {"learning_rate": 1}

    @pytest.mark.parametrize(
        ("override", "fault"),
        [
            ("seeds", "--set: must be KEY=VALUE, but got 'seeds'"),
            ("=3", "--set: must be KEY=VALUE, but got '=3'"),
            ("space..x=3", "--set: must be KEY=VALUE"),
            ("seeds=[1", "--set seeds: the value must be YAML, but got '[1'"),
            ("name.x=1", "--set name.x: name must be a mapping to set x in it, but is 'mine'"),
            ("methods.adaptr.adapter_size=1", "unknown method of this sweep 'adaptr'; did you mean 'adapter'?"),
            ("tasks.0=toy/topic", "tasks must be a mapping to set 0 in it"),
        ],
    )
    def test_one_that_cannot_be_applied_is_refused(self, tmp_path: Path, override: str, fault: str) -> None:
        with pytest.raises(SweepSpecError) as refusal:
            read_sweep(write(tmp_path, "sweep.yaml", YAML), ["seeds=[0]", override])
        assert fault in refusal.value.faults[0]

    def test_all_that_cannot_be_applied_come_at_once(self) -> None:
        with pytest.raises(SweepSpecError) as refusal:
            apply_overrides({"name": "a"}, ["x", "name.y=1", "z=["])
        assert len(refusal.value.faults) == 3

    def test_what_is_no_sweep_at_all_is_left_for_the_parser_to_refuse(self) -> None:
        assert apply_overrides(None, ["seeds=[0]"]) is None

    @given(st.text(max_size=20))
    def test_any_text_is_an_override_or_a_fault(self, override: str) -> None:
        with suppress(SweepSpecError):  # any other error fails the test
            parse_spec(apply_overrides({"name": "a", "tasks": ["b"], "methods": ["c"]}, [override]))


# Of a dataclass in a .py file, in whose annotations names stand in quotes.
DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True)
class Part:
    rates: tuple[float, ...] = (1e-3,)

SWEEP = {{"name": "{name}", "tasks": ["toy/sentiment"], "methods": ["layernorm"], "part": Part}}
"""


def test_a_python_file_may_hold_dataclasses_whose_annotations_are_put_off(tmp_path: Path) -> None:
    known = set(sys.modules)
    parts = [read_sweep(write(tmp_path, "sweep.py", DATACLASS.format(name=name)))["part"] for name in ("a", "b")]
    assert parts[0]().rates == (0.001,)
    assert parts[0].__module__ != parts[1].__module__, "two files of one name are two modules"
    assert {name for name in set(sys.modules) - known if name.startswith("sweep_file")} == set()


def test_a_python_file_that_fails_leaves_no_module_behind(tmp_path: Path) -> None:
    faults_of(write(tmp_path, "raises.py", DATACLASS.format(name="a") + "\n1 / 0"))
    assert [name for name in sys.modules if name.startswith("sweep_file")] == []


def test_a_class_of_a_python_file_reaches_other_processes(tmp_path: Path) -> None:
    part = read_sweep(write(tmp_path, "sweep.py", DATACLASS.format(name="a")))["part"]
    held = pytest.importorskip("cloudpickle").dumps(part(rates=(2.0,)))
    read = f"import pickle; print(pickle.loads({held!r}).rates)"
    ended = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=False)
    assert ended.stdout == "(2.0,)\n", ended.stderr


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (
            ["methods=[adapter]", "methods.adapter.adapter_size=8"],
            {"methods": [{"adapter": {"adapter_size": 8}}]},
        ),
        (
            ["methods=[{lora: {}}, adapter]", "methods.lora.rank=4", "methods.lora.rank=2"],
            {"methods": [{"lora": {"rank": 2}}, "adapter"]},
        ),
        (["space={dropout: 0.1}", "space.num_epochs=1", "dropout=0"], {"space": {"num_epochs": 1, "dropout": 0}}),
        (["space=", "num_epochs=2"], {"space": {"num_epochs": 2}}),
        (["learning_rate={grid: [1]}", "learning_rate.grid=[2, 3]"], {"space": {"learning_rate": {"grid": [2, 3]}}}),
        (
            ["search={algorithm: random}", "search.num_samples=2", "search.seed=1"],
            {"search": {"algorithm": "random", "num_samples": 2, "seed": 1}},
        ),
        (
            ["early_stopping=asha", "early_stopping.asha.grace_period=2", "early_stopping.asha.reduction_factor=4"],
            {"early_stopping": {"asha": {"grace_period": 2, "reduction_factor": 4}}},
        ),
        (["early_stopping=none", "early_stopping.patience.num_epochs=2"], {"early_stopping": Patience(num_epochs=2)}),
        (["name=b", "name=c"], {"name": "c"}),
    ],
)
def test_overrides_are_applied_in_their_order(overrides: list[str], changed: dict[str, Any]) -> None:
    sweep = {"name": "a", "tasks": ["toy/sentiment"], "methods": ["layernorm"]}
    assert parse_spec(apply_overrides(sweep, overrides)) == parse_spec({**sweep, **changed})


def test_an_override_changes_a_rule_that_a_script_made() -> None:
    sweep = SweepSpec(name="a", tasks=["toy/sentiment"], methods=["layernorm"], early_stopping=Asha(grace_period=3))
    spec = parse_spec(apply_overrides(sweep, ["early_stopping.asha.reduction_factor=4"]))
    assert spec.early_stopping == Asha(grace_period=3, reduction_factor=4)


def test_an_override_that_would_change_nothing_is_refused_for_methods_set_just_before() -> None:
    sweep = {"name": "a", "tasks": ["toy/sentiment"], "methods": ["layernorm"]}
    with pytest.raises(SweepSpecError) as refusal:
        apply_overrides(sweep, ["methods=[{adapter: {num_epochs: 3}}]", "num_epochs=2"])
    assert "every method has its own num_epochs; set methods.adapter.num_epochs" in refusal.value.faults[0]
