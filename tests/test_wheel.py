"""The wheel: what it holds, and that a sweep runs where nothing but it is installed of adaptune."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import adaptune

ROOT = Path(__file__).parent.parent
PACKAGES = ("adaptune", "orchestrator", "trainables", "search_spaces")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (built,) = folder.iterdir()
    return built


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    info = f"adaptune-{adaptune.__version__}.dist-info"
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in held} == {*PACKAGES, info}
    sources = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in held if not name.startswith(info)} == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert {f"orchestrator/analysis/page/page.{kind}" for kind in ("css", "html.jinja", "js")} <= held
    assert f"{info}/licenses/LICENSE" in held


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel in it, and this environment's libraries without its adaptune.

    A path in a .pth file is put at the end of sys.path; the .pth files that lie there, such as the one of an editable
    adaptune, are not read.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(site, "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.thorough
def test_a_sweep_runs_where_it_is_installed(installed: Path, tiny_bert: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    environment["ADAPTUNE_CACHE"] = str(tmp_path / "cache")
    command = [str(installed), "-I", str(ROOT / "tests" / "installed_sweep.py"), str(tiny_bert)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert Path(shown["place"]).is_relative_to(installed.parent.parent)
    assert shown["version"] == adaptune.__version__
    assert "toy/sentiment" in done.stdout
