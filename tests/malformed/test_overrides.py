"""`--set KEY=VALUE` with keys and values that lead nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CASES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("no equals sign",): ("--set: must be KEY=VALUE, but got 'no equals sign'",),
    ("",): ("--set: must be KEY=VALUE, but got ''",),
    ("=3",): ("--set: must be KEY=VALUE",),
    ("space.=3",): ("--set: must be KEY=VALUE",),
    (".space=3",): ("--set: must be KEY=VALUE",),
    ("a..b=3",): ("--set: must be KEY=VALUE",),
    ("seeds=[0",): ("--set seeds: the value must be YAML, but got '[0'",),
    ("seeds={a: b: c}",): ("--set seeds: the value must be YAML",),
    ("seeds=*x",): ("--set seeds: the value must be YAML",),
    ("seeds=\x00",): ("--set seeds: the value must be YAML",),
    ("seeds=" + "[" * 600,): ("--set seeds: the value must be YAML",),
    ("seeds=",): ("seeds: must be a list, but got nothing",),
    ("seeds=0",): ("seeds: must be a list, but got 0",),
    ("seeds=[-1]",): ("seeds.0: must be >= 0, but got -1",),
    ("seeds.0=1",): ("--set seeds.0: seeds must be a mapping to set 0 in it",),
    ("name.first=x",): ("--set name.first: name must be a mapping to set first in it, but is 'small'",),
    ("name=a/b",): ("name: must be letters",),
    ("nam=x",): ("nam: unknown key 'nam'", "did you mean 'name'"),
    ("num_epochs=0",): ("space.num_epochs: must be a whole number >= 1, but got 0",),
    ("num_epochs=yes",): ("space.num_epochs: must be a whole number >= 1, but got 'yes'",),
    ("num_epoch=1",): ("num_epoch: unknown key 'num_epoch'",),
    ("learning_rate.grid=3",): ("--set learning_rate.grid: learning_rate must be a mapping", "0.001"),
    ("space.learning_rate={grid: []}",): ("grid: must hold at least one value",),
    ("space=3",): ("space: must be a mapping, but got 3",),
    ("methods=adapter",): ("methods: must be a list, but got 'adapter'",),
    ("methods.adaptr.adapter_size=1",): ("unknown method of this sweep 'adaptr'", "did you mean 'adapter'"),
    ("methods.0.adapter_size=1",): ("unknown method of this sweep '0'",),
    ("methods.adapter.adapter_size=0",): ("adapter_size: must be in [1, 64]", "but got 0"),
    ("methods.adapter.adapter_siz=1",): ("'adapter_siz'", "did you mean 'adapter_size'"),
    ("methods.adapter=3",): ("methods.adapter: must be a mapping, but got 3",),
    ("search.algorithm=gird",): ("'gird'", "did you mean 'grid'"),
    ("search=grid",): ("search: must be a mapping, but got 'grid'",),
    ("tasks=[]",): ("tasks: must hold at least 1",),
    ("backbone=",): ("backbone: must be text, but got nothing",),
    ("größe=1",): ("unknown key 'größe'",),
    ("seeds=[0", "no equals", "methods.adaptr.x=1", "name.x=1"): (
        "4 faults",
        "--set seeds: the value must be YAML",
        "'no equals'",
        "'adaptr'",
        "--set name.x: name must be a mapping",
    ),
    ("seeds=[0]", "num_epochs=2", "methods.adapter.adapter_size=2"): (),
    ("learning_rate={grid: [1e-3, 3e-3]}",): (),
    ("learning_rate.grid=[1e-3]", "learning_rate={grid: [1]}"): ("--set learning_rate.grid: ",),
    ("name=other=name",): ("name: must be letters", "'other=name'"),
    ("early_stopping=asha",): (),
    ("early_stopping=ahsa",): ("'ahsa'", "did you mean 'asha'"),
}


@pytest.mark.parametrize(("overrides", "said"), CASES.items(), ids=lambda each: " ".join(each)[:50])
def test_an_override_is_refused_or_applied(
    overrides: tuple[str, ...], said: tuple[str, ...], sound: Callable, call: Callable, home: Path
) -> None:
    (home / "sweep.json").write_text(json.dumps(sound()), encoding="utf-8")
    ended = call("run", "sweep.json", *(part for each in overrides for part in ("--set", each)))
    if said:
        ended.assert_refused(*said)
    else:
        assert ended.is_accepted, ended
    assert not (home / "sweeps").exists()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(override=st.text(max_size=30))
@pytest.mark.thorough
def test_any_text_is_refused_or_applied(override: str, sound: Callable, call: Callable, home: Path) -> None:
    (home / "sweep.json").write_text(json.dumps(sound()), encoding="utf-8")
    ended = call("run", "sweep.json", f"--set={override}")
    assert ended.is_accepted or ended.status == 2, ended


def test_an_override_of_a_billion_values_is_refused(sound: Callable, call: Callable, home: Path) -> None:
    (home / "sweep.json").write_text(json.dumps(sound()), encoding="utf-8")
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]" + "".join(
        f", {new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    call("run", "sweep.json", "--set", f"space={{{laughs}}}").assert_refused(
        "--set space: must hold at most 1,000,000 values"
    )


def test_a_key_deeper_than_any_sweep_is_refused(sound: Callable, call: Callable, home: Path) -> None:
    (home / "deep.json").write_text(json.dumps(sound()), encoding="utf-8")
    ended = call("run", str(home / "deep.json"), "--set", f"space.{'.'.join('a' * 2000)}=1")
    ended.assert_refused("a key must have at most 100 dots, but has 2,000")
    (home / "deep.json").unlink()
