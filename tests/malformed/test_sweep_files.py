"""Sweep files that are no sweeps: each is refused for what it is, or is a sound sweep written strangely."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.sweep_file import read_sweep

# A sound sweep in YAML, flow style; @BACKBONE@ and @TASK@ stand for what the tests have.
SOUND = "{name: small, backbone: '@BACKBONE@', tasks: ['@TASK@'], seeds: [0], methods: [layernorm]}"
LINES = "name: small\nbackbone: '@BACKBONE@'\ntasks: ['@TASK@']\nseeds: [0]\nmethods:\n- layernorm\n"
JSON_TEXT = '{"name": "small", "backbone": "@BACKBONE@", "tasks": ["@TASK@"], "seeds": [0], "methods": ["layernorm"]}'
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
PYTHON = "SWEEP = {'name': 'small', 'backbone': '@BACKBONE@', 'tasks': ['@TASK@'], 'seeds': [0], 'methods': METHODS}\n"


class File(NamedTuple):
    """A file and what must be said of it; nothing where it is a sound sweep."""

    name: str
    content: str | bytes
    said: tuple[str, ...] = ()


def yaml(content: str | bytes, *said: str) -> File:
    return File("sweep.yaml", content, said)


def python(content: str | bytes, *said: str) -> File:
    return File("sweep.py", content, said)


NO_YAML = "must be readable as YAML"
NO_JSON = "must be readable as JSON"
NO_MAPPING = "a sweep must be a mapping with the keys name, backbone, tasks"
NO_PYTHON = "must run as Python, but raised"

YAML = {
    "empty": yaml("", NO_MAPPING, "but got nothing"),
    "blank": yaml(" \n\n  \n", NO_MAPPING),
    "a comment": yaml("# nothing\n", NO_MAPPING),
    "a number": yaml("3\n", NO_MAPPING, "but got 3"),
    "a text": yaml("quickstart\n", NO_MAPPING, "but got 'quickstart'"),
    "a list": yaml("[name, small]\n", NO_MAPPING),
    "a set": yaml("!!set {name, tasks}\n", NO_MAPPING),
    "an empty mapping": yaml("{}\n", "name: is required", "tasks: is required", "methods: is required"),
    "null at every key": yaml(
        "name:\nbackbone:\ntasks:\nmethods:\nseeds:\n",
        "name: must be text",
        "backbone: must be text",
        "tasks: must be a list",
        "methods: must be a list",
        "seeds: must be a list",
    ),
    "unclosed": yaml("{name: small, tasks: [", NO_YAML),
    "unquoted colon": yaml("name: small: er\n", NO_YAML),
    "a tab for indentation": yaml("name: small\nspace:\n\tnum_epochs: 1\n", NO_YAML),
    "bad indentation": yaml("name: small\n  tasks: [x]\n methods: []\n", NO_YAML),
    "a key twice": yaml(LINES + "seeds: [1]\n", NO_YAML, "duplicate key"),
    "an unknown anchor": yaml("name: *nobody\n", NO_YAML, "nobody"),
    "a python object": yaml("name: !!python/object/apply:os.system ['true']\n", NO_YAML),
    "an unknown tag": yaml("name: !secret x\n", NO_YAML),
    "two documents": yaml("name: a\n---\nname: b\n", NO_YAML),
    "control characters": yaml("name: 'a\x07b'\n", NO_YAML),
    "a zero byte": yaml(b"name: sm\x00all\n", NO_YAML),
    "latin-1": yaml("name: größe\n".encode("latin-1"), NO_YAML, "utf-8"),
    "utf-16": yaml(LINES.encode("utf-16"), NO_YAML),
    "binary": yaml(bytes(range(256)) * 4, NO_YAML),
    "a gzip file": yaml(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", NO_YAML),
    "an impossible date": yaml("name: 2025-13-45\n", NO_YAML, "month must be in 1..12"),
    "a date for a name": yaml(LINES.replace("small", "2025-01-02"), "name: must be text"),
    "a list for a key": yaml("? [name, tasks]\n: small\n", "name"),
    "a mapping for a key": yaml("? {name: tasks}\n: small\n", "unhashable key", "a key must be text"),
    "a number for a key": yaml(LINES + "3: x\n", "3: unknown key '3'"),
    "null for a key": yaml(LINES + "~: x\n", "unknown key"),
    "a billion laughs": yaml(LAUGHS + LINES, "must hold at most 1,000,000 values"),
    "a billion laughs of tasks": yaml(LAUGHS + LINES.replace("['@TASK@']", "*i"), "must hold at most 1,000,000 values"),
    "itself": yaml("&me\nname: small\nspace: *me\n", "a sweep must not contain itself"),
    "itself in a list": yaml("name: small\nseeds: &s [0, *s]\n", "a sweep must not contain itself"),
    "very deep": yaml("[" * 600, NO_YAML),
    "deep mappings": yaml("{a: " * 1500, NO_YAML),
    "a number without end": yaml(LINES + "space: {learning_rate: 1" + "0" * 5000 + "}\n", ""),
    "not a number": yaml(LINES + "space: {learning_rate: .nan}\n", "must be a number > 0, but got nan"),
    "infinity": yaml(LINES + "space: {learning_rate: .inf}\n", "must be a number > 0, but got inf"),
    "a JSON NaN is a text": yaml(LINES + "space: {learning_rate: NaN}\n", "must be a number > 0, but got 'NaN'"),
    "yes is a text": yaml(LINES + "space: {dropout: yes}\n", "space.dropout"),
    "sexagesimals are texts": yaml(LINES + "space: {num_epochs: 1:30}\n", "space.num_epochs"),
    "octal": yaml(LINES.replace("[0]", "[0o17]")),
    "hexadecimal": yaml(LINES.replace("[0]", "[0x1F]")),
    "binary data": yaml(LINES.replace("small", "!!binary aGVsbG8=")),
    "an exponent is a number": yaml(LINES + "space: {learning_rate: 3e-4}\n"),
    "a byte order mark": yaml("\ufeff" + LINES),
    "windows line ends": yaml(LINES.replace("\n", "\r\n")),
    "flow style": yaml(SOUND),
    "a merge key": yaml(
        "base: &base {name: small}\n<<: *base\n" + LINES.removeprefix("name: small\n"), "base: unknown key 'base'"
    ),
    "anchors of sound values": yaml(LINES + "space: {num_epochs: &n 1, batch_size: *n}\n"),
    "a thousand unknown keys": yaml(
        LINES + "".join(f"key{number}: 1\n" for number in range(1000)), "1000 faults", "key0", "key999"
    ),
    "duplicate methods entries": yaml(LINES + "- layernorm\n"),
}
JSON = {
    "JSON": File("sweep.json", JSON_TEXT),
    "JSON with a byte order mark": File("sweep.json", "\ufeff" + JSON_TEXT),
    "YAML called JSON": File("sweep.json", SOUND, (NO_JSON,)),
    "a very deep JSON": File("sweep.json", "[" * 100_000, (NO_JSON,)),
    "halves of characters": File("sweep.json", JSON_TEXT.replace("small", "\\ud800"), ("name: ",)),
    "a wide character in a name": File(
        "sweep.json", JSON_TEXT.replace("small", "\\ud83d\\udc22"), ("name: must be lett",)
    ),
    "a JSON NaN is a number": File(
        "sweep.json", JSON_TEXT[:-1] + ', "space": {"learning_rate": NaN}}', ("must be a number > 0, but got nan",)
    ),
    "JSON cut short": File("sweep.json", '{"name": "small", "tasks": ["', (NO_JSON,)),
    "JSON with a key twice": File("sweep.json", '{"name": "a", "name": "b"}', (NO_JSON, "duplicate key")),
    "JSON lines": File("sweep.json", '{"name": "a"}\n{"name": "b"}\n', (NO_JSON,)),
    "JSON of a list": File("sweep.json", "[1, 2]", (NO_MAPPING,)),
    "empty JSON": File("sweep.json", "", (NO_JSON,)),
    "an ending of another case": File("sweep.YAML", LINES, ("unknown kind of sweep file '.YAML'",)),
    "toml": File("sweep.toml", "name = 'small'", ("unknown kind of sweep file '.toml'",)),
    "no ending": File("sweep", LINES, ("unknown kind of sweep file ''",)),
    "yml": File("sweep.yml", LINES),
}
PY = {
    "empty Python": python("", "must hold a constant SWEEP"),
    "no SWEEP": python("SWEEPS = {}\n", "must hold a constant SWEEP"),
    "SWEEP deleted": python("SWEEP = {}\ndel SWEEP\n", "must hold a constant SWEEP"),
    "SWEEP is None": python("SWEEP = None\n", NO_MAPPING),
    "SWEEP is a class": python("class SWEEP: name = 'x'\n", NO_MAPPING),
    "SWEEP is a function": python("def SWEEP(): return {}\n", NO_MAPPING),
    "SWEEP is bytes": python("SWEEP = b'name'\n", NO_MAPPING),
    "SWEEP of bytes": python("SWEEP = {b'name': b'x'}\n", "name: is required", "unknown key \"b'name'\""),
    "SWEEP of odd objects": python("SWEEP = {'name': object(), 'tasks': {1}, 'methods': len}\n", "name", "methods"),
    "SWEEP holds itself": python("SWEEP = {}\nSWEEP['space'] = SWEEP\n", "must not contain itself"),
    "SWEEP with a repr that raises": python(
        "class Odd:\n    def __repr__(self): raise ValueError('no')\nSWEEP = {'name': Odd()}\n", "name: must be text"
    ),
    "a syntax error": python("SWEEP = {\n", f"{NO_PYTHON} SyntaxError"),
    "an indentation error": python("  SWEEP = 1\n", NO_PYTHON, "IndentationError"),
    "a name error": python("\nSWEEP = grid([1])\n", f"{NO_PYTHON[:-7]} raised in line 2 NameError: name 'grid'"),
    "an import error": python("import no_such_module_here\n", "in line 1 ModuleNotFoundError", "no_such_module_here"),
    "an error in a function": python("def f():\n    return 1 / 0\nSWEEP = f()\n", "in line 2 ZeroDivisionError"),
    "exit": python("import sys\nsys.exit(0)\n", "in line 2 SystemExit: 0"),
    "exit without words": python("raise SystemExit\n", "raised in line 1 SystemExit"),
    "quit": python("exit()\n", "in line 1 SystemExit"),
    "recursion": python("def f(): return f()\nf()\n", "RecursionError"),
    "it imports itself": python(
        "import importlib.util\nspec = importlib.util.spec_from_file_location('m', __file__)\n"
        "m = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(m)\n",
        "RecursionError",
    ),
    "an assertion": python("assert 1 == 2, 'sums are off'\n", "in line 1 AssertionError: sums are off"),
    "an exception group": python("raise ExceptionGroup('many', [ValueError('a')])\n", "ExceptionGroup"),
    "an exception with a bad text": python(
        "class Odd(Exception):\n    def __str__(self): raise ValueError('no')\nraise Odd\n", "in line 3 Odd"
    ),
    "a warning": python("import warnings\nwarnings.warn('beware')\n", ""),
    "zero bytes in Python": python(b"SWEEP = 1\x00\n", NO_PYTHON),
    "latin-1 Python": python("X = 'größe'\nSWEEP = {}\n".encode("latin-1"), NO_PYTHON, "SyntaxError"),
    "binary Python": python(bytes(range(128, 256)), NO_PYTHON),
    "an unknown encoding": python(b"# -*- coding: klingon -*-\nSWEEP = {}\n", NO_PYTHON, "klingon"),
    "a latin-1 cookie": python("# -*- coding: latin-1 -*-\nX = 'größe'\nSWEEP = 3\n".encode("latin-1"), NO_MAPPING),
    "a faulty spec of its own": python(
        "from orchestrator.spec.spec import SweepSpec\nSWEEP = SweepSpec(name='a b', tasks=[], methods=[3])\n",
        "name: must be letters",
        "tasks: must hold at least 1",
        "methods.0: must be a mapping",
    ),
    "a faulty domain of its own": python(
        "from orchestrator.spec.space import Grid\nSWEEP = {'space': {'learning_rate': Grid([])}}\n",
        "grid: must hold at least one value",
    ),
    "a generator of methods": python("METHODS = (m for m in ['layernorm'])\n" + PYTHON),
    "a generator of methods beside a fault": python(
        "METHODS = (m for m in ['layernorm', 3])\n" + PYTHON.replace("[0]", "(s for s in ())"),
        "2 faults",
        "methods.1: must be a mapping",
        "seeds: must hold at least 1",
    ),
    "a tuple of methods": python("METHODS = ('layernorm',)\n" + PYTHON),
    "numpy numbers": python(
        "import numpy as np\nMETHODS = [{'adapter': {'adapter_size': np.int64(4)}}]\n" + PYTHON,
        "adapter.adapter_size",
    ),
    "prints": python("METHODS = ['layernorm']\n" + PYTHON),
}
CASES = {**YAML, **JSON, **PY}


@pytest.fixture
def write(tmp_path: Path, small_encoder: Path, good_folder: Path) -> Callable[[File], str]:
    def written(file: File) -> str:
        content = file.content
        for mark, place in (("@BACKBONE@", small_encoder), ("@TASK@", good_folder)):
            if isinstance(content, bytes):
                content = content.replace(mark.encode(), str(place).encode())
            else:
                content = content.replace(mark, str(place))
        path = tmp_path / file.name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    return written


def test_a_sweep_file_is_refused_or_sound(
    write: Callable, call: Callable, home: Path, subtests: pytest.Subtests
) -> None:
    for name, case in CASES.items():
        with subtests.test(name):
            ended = call("run", write(case))
            if case.said:
                ended.assert_refused(*case.said)
            else:
                assert ended.is_accepted, ended
            assert not (home / "sweeps").exists()


PLACES = {
    "nothing there": ("nowhere.yaml", "there is no file 'nowhere.yaml'"),
    "a packaged name misspelt": ("quikstart", "did you mean 'quickstart'"),
    "a folder": (".", "'.' is a folder; a sweep lists task folders in `tasks`"),
    "a folder called like a file": ("folder.yaml", "'folder.yaml' is a folder"),
    "a link to nowhere": ("dangling.yaml", "there is no file 'dangling.yaml'"),
    "a link to itself": ("circle.yaml", "circle.yaml"),
    "a device": ("/dev/null", "there is no file '/dev/null'"),
    "an empty name": ("", "there is no file ''"),
    "a zero byte": ("a\x00.yaml", "a sweep must be"),
    "a name without end": ("x" * 5000 + ".yaml", "a sweep must be"),
    "below a file": ("/dev/null/sweep.yaml", "a sweep must be"),
    "of nobody": ("~nobody-here/sweep.yaml", "there is no file"),
}


@pytest.mark.parametrize("command", ["run", "plan", "resume"])
def test_a_place_without_a_sweep_is_refused(
    command: str,
    call: Callable,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    for place, (reference, said) in PLACES.items():
        with subtests.test(place):
            if command == "resume":  # of a store that is not there, which is said first
                call(command, "store", reference).assert_refused("there must be a store to resume")
            else:
                call(command, reference).assert_refused(said)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)),
    ending=st.sampled_from([".yaml", ".json", ".py"]),
)
def test_any_bytes_are_refused_and_nothing_is_raised(content: bytes, ending: str, call: Callable, home: Path) -> None:
    path = home / f"any{ending}"
    path.write_bytes(content)
    call("run", str(path)).assert_refused(" fault")
    path.unlink()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    values=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ),
    key=st.sampled_from(["name", "backbone", "tasks", "seeds", "space", "methods", "search", "early_stopping"]),
)
def test_any_value_at_any_key_is_refused_or_sound(
    values: object, key: str, sound: Callable, call: Callable, home: Path
) -> None:
    path = home / "any.json"
    path.write_text(json.dumps({**sound(), key: values}), encoding="utf-8")
    ended = call("run", str(path))
    assert ended.is_accepted or ended.status == 2, ended
    if not ended.is_accepted:
        ended.assert_refused(" fault")
    path.unlink()


def test_what_fills_a_terminal_is_cut_in_its_middle(sound: Callable, call: Callable, home: Path) -> None:
    path = home / "long.json"
    path.write_text(json.dumps({**sound(), "tasks": ["a" * 100_000]}), encoding="utf-8")
    ended = call("run", str(path))
    ended.assert_refused("no such folder", "characters) ...", "Known by name")
    assert len(ended.err) < 10_000
    path.unlink()


def test_mappings_merged_into_each_other_are_refused_and_not_read(call: Callable, home: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for depth in range(1, 30):
        lines += [f"a{depth}: &a{depth}", f"  <<: [{', '.join([f'*a{depth - 1}'] * 9)}]"]
    path = home / "merged.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    call("run", str(path)).assert_refused("its merged mappings (<<) would hold", "more than 1,000,000")
    path.unlink()


def test_merged_mappings_are_read_as_yaml_has_them(home: Path) -> None:
    path = home / "merged.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: {<<: [*a, {z: 3}]}\n", encoding="utf-8")
    assert read_sweep(str(path)) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "z": 3}}
    path.unlink()
