"""Specs: the shapes that are understood, and every fault of a shape in one error."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.early_stopping import Asha
from orchestrator.spec.space import Grid, LogUniform
from orchestrator.spec.spec import (
    MethodSpec,
    NonInferioritySpec,
    SweepSpec,
    SweepSpecError,
    parse_leniently,
    parse_spec,
)

SOUND: dict[str, Any] = {
    "name": "sweep",
    "backbone": "minilm",
    "tasks": ["toy/sentiment", "toy/topic"],
    "seeds": [0, 1],
    "space": {"num_epochs": 3, "learning_rate": {"grid": [1e-3, 3e-3]}},
    "methods": [{"adapter": {"adapter_size": {"grid": [2, 8]}}}, "layernorm", {"full_finetuning": None}],
    "search": {"algorithm": "grid"},
    "early_stopping": "none",
}


def faults_of(values: Any) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        parse_spec(values)
    return refusal.value.faults


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SOUND), **changes}


def test_the_short_forms_of_a_sweep_file_are_understood() -> None:
    spec = parse_spec(SOUND)
    assert [entry.method for entry in spec.methods] == ["adapter", "layernorm", "full_finetuning"]
    assert spec.methods[0].space == {"adapter_size": Grid([2, 8])}
    assert spec.methods[2].space == {}


def test_a_spec_may_be_written_in_python_with_domains_and_short_forms() -> None:
    spec = SweepSpec(
        name="sweep",
        tasks=["toy/sentiment"],
        space={"learning_rate": LogUniform(1e-4, 1e-2)},
        methods=[{"adapter": {"adapter_size": Grid([2, 8])}}, MethodSpec(method="layernorm"), "full_finetuning"],
    )
    assert spec.methods[0] == MethodSpec(method="adapter", space={"adapter_size": {"grid": [2, 8]}})
    assert parse_spec(json.loads(spec.to_json())) == spec
    assert parse_spec(spec) is spec


@pytest.mark.parametrize("nothing", [None, "none"])
def test_no_early_stopping_may_be_none_or_null(nothing: str | None) -> None:
    assert parse_spec(changed(early_stopping=nothing)).early_stopping == "none"


@pytest.mark.parametrize("form", ["asha", {"asha": None}, {"asha": {"grace_period": 1}}])
def test_early_stopping_may_be_a_name_or_a_rule_with_its_settings(form: Any) -> None:
    spec = parse_spec(changed(early_stopping=form))
    assert spec.early_stopping == Asha()
    assert parse_spec(json.loads(spec.to_json())) == spec


def test_an_empty_space_may_be_null() -> None:
    assert parse_spec(changed(space=None)).space == {}


def test_a_script_hears_of_faults_as_a_file_does() -> None:
    with pytest.raises(SweepSpecError) as error:
        SweepSpec(name="mine", tasks="toy/sentiment", method=["adapter"])  # type: ignore[call-arg, arg-type]
    assert error.value.subject == "sweep mine"
    assert [fault[:52] for fault in error.value.faults] == [
        "tasks: must be a list, but got 'toy/sentiment'; writ",
        "methods: is required",
        "method: unknown key 'method'; did you mean 'methods'",
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "a/b"}, "name: must be letters, digits, dots, dashes and underscores"),
        ({"name": "a" * 300}, "name: must have at most 200 characters (it names a folder), but has 300"),
        ({"name": ""}, "name: must be letters"),
        ({"name": 3}, "name: must be text, but got 3"),
        ({"backbone": ""}, "backbone: must not be empty, but got ''"),
        ({"backbone": None}, "backbone: must be text, but got nothing"),
        ({"tasks": []}, "tasks: must hold at least 1, but got []"),
        ({"tasks": "toy/sentiment"}, "tasks: must be a list, but got 'toy/sentiment'; write [toy/sentiment]"),
        ({"tasks": ["toy/topic", "toy/topic"]}, "tasks: every entry must stand once, but 'toy/topic' stands twice"),
        ({"tasks": ["toy/topic", None]}, "tasks.1: must be text, but got nothing"),
        ({"seeds": []}, "seeds: must hold at least 1, but got []"),
        ({"seeds": [0, -1]}, "seeds.1: must be >= 0, but got -1"),
        ({"seeds": [0, True]}, "seeds.1: must be a whole number, but got True"),
        ({"seeds": [0.5]}, "seeds.0: must be a whole number, but got 0.5"),
        ({"seeds": [2**63]}, "seeds.0: must be < 9223372036854775808"),
        ({"seeds": [1, 1]}, "seeds: every entry must stand once, but 1 stands twice"),
        ({"seeds": 3}, "must be a list, but got 3; write [3] for the seed 3, [0, 1, 2] for 3 seeds"),
        ({"seeds": 0}, "seeds: must be a list, but got 0; write [0]"),
        ({"seeds": 20}, "write [20] for the seed 20, [0, 1, ..., 19] for 20 seeds"),
        ({"space": [1]}, "space: must be a mapping, but got [1]"),
        ({"space": {"num_epochs": {"grid": []}}}, "space.num_epochs: grid: must hold at least one value"),
        ({"space": {"num_epochs": [1, 2]}}, "write {grid: [1, 2]} to try each"),
        ({"methods": []}, "methods: must hold at least 1, but got []"),
        ({"methods": "adapter"}, "methods: must be a list, but got 'adapter'; write [adapter]"),
        ({"methods": {"adapter": {}}}, "but got {'adapter': {}}; begin the line of each method with a dash"),
        ({"methods": [3]}, "methods.0: must be a mapping, but got 3"),
        ({"methods": [{"adapter": {}, "layernorm": {}}]}, "must name exactly one method, but got adapter, layernorm"),
        (
            {"methods": [{"adapter": None, "adapter_size": 4}]},
            "but got adapter, adapter_size; indent the options of adapter below it, or write adapter: {adapter_size:",
        ),
        ({"methods": [{"adapter": {"adapter_size": {"gird": [1]}}}]}, "methods.adapter.adapter_size: unknown domain"),
        ({"methods": [{"adapter": 3}]}, "methods.adapter: must be a mapping, but got 3"),
        ({"search": {"num_samples": 0}}, "search.num_samples: must be >= 1, but got 0"),
        ({"search": {"num_samples": True}}, "search.num_samples: must be a whole number, but got True"),
        ({"search": {"algoritm": "grid"}}, "search.algoritm: unknown key 'algoritm'; did you mean 'algorithm'?"),
        ({"search": "grid"}, "search: must be a mapping, but got 'grid'; write {algorithm: grid}"),
        ({"early_stopping": "asah"}, "early_stopping: unknown rule of early stopping 'asah'; did you mean 'asha'?"),
        (
            {"early_stopping": {"asha": {"grace_period": 0}}},
            "early_stopping: asha.grace_period: must be a whole number",
        ),
        ({"num_epoch": 1}, "num_epoch: unknown key 'num_epoch'; did you mean 'num_epochs' in space? Known: backbone,"),
        ({"num_epochs": 1}, "num_epochs: unknown key 'num_epochs'; did you mean 'num_epochs' in space?"),
        ({"adapter_size": 1}, "(hyperparameters stand in space, options of a method below the method)"),
        ({"sedes": [1]}, "sedes: unknown key 'sedes'; did you mean 'seeds'? Known: backbone,"),
    ],
)
def test_a_faulty_part_is_refused_with_the_rule_and_what_came(change: dict[str, Any], fault: str) -> None:
    (message,) = faults_of(changed(**change))
    assert fault in message


@pytest.mark.parametrize("values", [None, 3, "sweep", [], [SOUND]])
def test_what_is_no_mapping_is_refused_with_the_keys(values: Any) -> None:
    (fault,) = faults_of(values)
    assert fault.startswith("a sweep must be a mapping with the keys name, backbone, tasks,")


def test_all_faults_come_at_once_and_the_sound_parts_stay() -> None:
    values = changed(seeds=[-1, 3], methods=[{"adapter": {"adapter_size": {"grid": []}}}, "layernorm"], nmae="x")
    spec, faults = parse_leniently(values)
    assert len(faults) == 3
    assert spec.seeds == (3,)
    assert [entry.method for entry in spec.methods] == ["adapter", "layernorm"]
    assert faults_of({})[0] == "name: is required"
    assert len(faults_of({})) == 3


def test_a_margin_may_be_declared_and_leaves_the_json_of_other_sweeps_alone() -> None:
    declared = parse_spec(changed(non_inferiority={"reference": "full_finetuning", "margin": 0.01}))
    assert declared.non_inferiority == NonInferioritySpec(reference="full_finetuning", margin=0.01)
    assert parse_spec(json.loads(declared.to_json())) == declared
    assert not {"non_inferiority", "log_models", "register_model"} & json.loads(parse_spec(SOUND).to_json()).keys()
    assert parse_spec(changed(non_inferiority=None)).non_inferiority is None


@pytest.mark.parametrize(
    ("given_", "faults"),
    [
        ({"reference": "", "margin": 0}, ["reference: must not be empty", "margin: must be > 0, but got 0"]),
        ({"reference": 3, "margin": "1 %"}, ["reference: must be text", "margin: must be a number, but got '1 %'"]),
        ({"margins": 1}, ["reference: is required", "margin: is required", "'margins'; did you mean 'margin'?"]),
        ({"reference": "layernorm", "margin": True}, ["margin: must be a number, but got True"]),
        ({"reference": "layernorm", "margin": float("inf")}, ["margin: must be a number that is not infinite"]),
    ],
)
def test_a_faulty_margin_is_refused_with_every_fault(given_: Any, faults: list[str]) -> None:
    found = faults_of(changed(non_inferiority=given_))
    assert len(found) == len(faults)
    for fault in faults:
        assert any(each.startswith("non_inferiority.") and fault in each for each in found), found


def test_a_sweep_that_contains_itself_is_refused() -> None:
    values = changed()
    values["space"] = values
    assert faults_of(values) == ("a sweep must not contain itself",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["grid", "uniform", "method", "space", "adapter", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*SOUND, "non_inferiority", "typo"]), JSON, max_size=4))
def test_whatever_stands_in_a_sweep_it_is_a_spec_or_faults(changes: dict[str, Any]) -> None:
    try:
        spec = parse_spec(changed(**changes))
    except SweepSpecError:
        return  # any other error fails the test
    assert parse_spec(json.loads(spec.to_json())).to_json() == spec.to_json()
