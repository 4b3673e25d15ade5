"""Backbones as a sweep names them: one or several, in any form, and what each is called beside the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.backbones import apart, short_names
from orchestrator.spec.space import Grid
from orchestrator.spec.spec import SweepSpec, SweepSpecError, parse_spec

SOUND: dict[str, Any] = {"name": "sweep", "tasks": ["toy/sentiment"], "methods": ["adapter"]}
TWO = ("minilm", "bert-base-uncased")


@pytest.mark.parametrize("form", [list(TWO), TWO, {"grid": list(TWO)}, Grid(list(TWO))])
def test_several_backbones_have_several_forms_and_one_reading(form: Any) -> None:
    spec = parse_spec({**SOUND, "backbone": form})
    assert spec.backbone == spec.backbones == TWO
    assert SweepSpec(**SOUND, backbone=form) == parse_spec(json.loads(spec.to_json())) == spec


@pytest.mark.parametrize("form", ["minilm", ["minilm"], {"grid": ["minilm"]}])
def test_one_backbone_stays_text_in_the_resolved_sweep(form: Any) -> None:
    spec = parse_spec({**SOUND, "backbone": form})
    assert spec.backbones == ("minilm",)
    assert json.loads(spec.to_json())["backbone"] == "minilm"


@pytest.mark.parametrize(
    ("backbone", "faults"),
    [
        ([], ["must hold at least 1, but got an empty list"]),
        (["a", "b", "a"], ["every backbone must stand once, but 'a' stands twice"]),
        (["a", 3, "", "a"], ["but got 3; must hold", "but got ''; every backbone must stand once, but 'a'"]),
        ([["a"], ["a"]], ["must hold names or paths, but got ['a']; must hold names or paths, but got ['a']"]),
        ({"choice": ["a"]}, ["must be text, but got {'choice': ['a']}; several are a list or {grid: [...]}"]),
        ({"grid": "a"}, ["must be text, but got {'grid': 'a'}"]),
    ],
)
def test_faults_come_in_one_sentence_of_the_backbone(backbone: Any, faults: list[str]) -> None:
    with pytest.raises(SweepSpecError) as refusal:
        parse_spec({**SOUND, "backbone": backbone})
    (found,) = refusal.value.faults
    assert found.startswith("backbone: ")
    assert all(fault in found for fault in faults)


def test_folders_become_absolute_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    resolved = ("minilm", str(tmp_path / "mine"))
    for form in (["minilm", "mine"], {"grid": ["minilm", "mine"]}):
        assert with_absolute_paths({**SOUND, "backbone": form})["backbone"] == resolved
        assert with_absolute_paths(SweepSpec(**SOUND, backbone=form)).backbone == resolved
    assert with_absolute_paths({**SOUND, "backbone": "mine"})["backbone"] == resolved[1]
    assert with_absolute_paths({**SOUND, "backbone": {"choice": 1}})["backbone"] == {"choice": 1}


def test_a_backbone_is_called_by_as_much_of_its_end_as_tells_it_apart() -> None:
    assert short_names(["minilm", "/models/cut/minilm", "/models/other", "google-bert/bert-base-uncased"]) == {
        "minilm": "minilm",
        "/models/cut/minilm": "cut/minilm",
        "/models/other": "other",
        "google-bert/bert-base-uncased": "bert-base-uncased",
    }
    assert apart(["/models/other", "/models/other"]) == {}


@given(st.lists(st.text("ab/", min_size=1, max_size=8), unique=True, max_size=6))
def test_no_two_are_called_the_same(references: list[str]) -> None:
    assert len(set(short_names(references).values())) == len(references)
