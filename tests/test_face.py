"""`import adaptune`: what it loads, what it offers, and what a type checker makes of it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import adaptune

ROOT = Path(__file__).parent.parent


def run_python(code: str, folder: Path, *flags: str, path: Path = ROOT) -> str:
    """What a fresh interpreter prints, started in a folder where nothing of this project lies."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_loads_no_heavy_library_and_sets_up_no_logging(tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "ray", "mlflow", "optuna", "matplotlib", "pyarrow", "numpy", "pydantic"}
    code = f"""
import json, logging, os, signal, sys, warnings
before = (dict(os.environ), signal.getsignal(signal.SIGINT), list(warnings.filters), list(logging.root.handlers))
import adaptune
dir(adaptune), adaptune.__version__
after = (dict(os.environ), signal.getsignal(signal.SIGINT), list(warnings.filters), list(logging.root.handlers))
ours = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("adaptune", "orchestrator")]
print(json.dumps([sorted({heavy!r} & sys.modules.keys()), before == after, logging.root.level, ours]))
"""
    assert json.loads(run_python(code, tmp_path)) == [[], True, 30, []]


def test_every_name_is_found_and_listed() -> None:
    assert sorted(adaptune.__all__) == adaptune.__all__
    assert set(dir(adaptune)) >= set(adaptune.__all__)
    for name in adaptune.__all__:
        assert getattr(adaptune, name) is not None
    public = {name for name in adaptune.__all__ if not name.startswith("_")}
    assert {getattr(adaptune, name).__name__ for name in public} == public


def test_star_import_gives_what_is_listed() -> None:
    names: dict[str, object] = {}
    exec("from adaptune import *", names)
    assert names.keys() - {"__builtins__"} == set(adaptune.__all__)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"module 'adaptune' has no attribute 'load_result'.*'load_results'"):
        _ = adaptune.load_result  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="load_result"):
        from adaptune import load_result  # type: ignore[attr-defined]  # noqa: F401


def test_its_version_is_that_of_the_distribution() -> None:
    assert adaptune.__version__ == importlib.metadata.version("adaptune")


def test_it_has_a_version_where_it_is_not_installed(tmp_path: Path) -> None:
    # -S: without site-packages, and so without any distribution.
    code = "import adaptune; print(adaptune.__version__)"
    assert run_python(code, tmp_path, "-S").strip() == adaptune.__version__


def test_a_copy_that_knows_no_version_says_so(tmp_path: Path) -> None:
    (tmp_path / "adaptune").mkdir()
    (tmp_path / "adaptune" / "__init__.py").write_text((ROOT / "adaptune" / "__init__.py").read_text())
    code = "import adaptune; print(adaptune.__version__)"
    assert run_python(code, tmp_path, "-S", path=tmp_path).strip() == "0+unknown"


SCRIPT = """
import adaptune
from adaptune import Grid, LogUniform, MethodSpec, SweepSpec, load, load_results, run_sweep

spec = SweepSpec(
    name="typed",
    tasks=("toy/sentiment",),
    space={"learning_rate": LogUniform(1e-4, 1e-2)},
    methods=(MethodSpec(method="adapter", space={"adapter_size": Grid([2, 8])}),),
)
results = load_results("sweeps/quickstart")
trained: adaptune.Results = run_sweep(spec, "store")
reveal_type(results)
reveal_type(adaptune.run_sweep)
reveal_type(load("folder"))
reveal_type(adaptune.__version__)
names: list[str] = results.trials().column_names
"""


# A strict check of the script, without what the libraries say of themselves: reading torch takes a minute.
SETTINGS = """
[mypy]
strict = true
follow_imports = silent
[mypy-torch.*,transformers.*,tokenizers.*,safetensors.*,huggingface_hub.*,peft.*,ray.*,mlflow.*,optuna.*,matplotlib.*]
follow_imports = skip
"""


@pytest.mark.timeout(180)
@pytest.mark.thorough
def test_a_user_s_script_passes_a_strict_type_check_with_every_type_known(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    assert pytestconfig.cache is not None
    known = pytestconfig.cache.mkdir("mypy")  # what it has read before, and checks for changes
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(known), "script.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    revealed = [line.partition("is ")[2] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert revealed[0] == '"orchestrator.analysis.results.Results"'
    assert revealed[1].endswith('-> orchestrator.analysis.results.Results"')
    assert revealed[2] == '"trainables.inference.predictor.Predictor"'
    assert revealed[3] in ('"str"', '"builtins.str"')


@pytest.mark.parametrize("package", ["adaptune", "orchestrator", "trainables", "search_spaces"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
