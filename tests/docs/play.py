"""Run the blocks of pages, in the order in which they stand: `python -m tests.docs.play [--minutes] [PAGE ...]`.

The blocks of a page share a folder and, those in Python, their names. The first one that fails ends the page, and its
place is told. `make docs-run` runs every page with `--minutes`, and so what takes long as well.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, page_before

# Commands that start no processes which outlive them.
_ANSWER_AT_ONCE = ("plan", "data", "status", "report", "export", "doctor")
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class BlockError(AssertionError):
    """A block fails, or prints something else than the page says."""


def play(page: Path, *, minutes: bool = False) -> None:
    """Run a page in the current folder. Raises `BlockError` at the first block that does not do what it says."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks_of(page):
        if block.mark == "file":
            _write(block)
        elif block.mark == "output":
            if not doctest.OutputChecker().check_output(block.text, printed, _SAME):
                raise BlockError(f"{block.place}: the page says\n{block.text}\nbut this was printed\n{printed}")
        elif not block.mark or (minutes and (block.mark, block.value) == ("needs", "minutes")):
            if block.language == "python":
                printed = _run_python(block, names)
            elif block.language == "bash":
                printed = _run_bash(block)


def _write(block: Block) -> None:
    path = Path(block.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def _run_python(block: Block, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    # Blank lines, so that a traceback names the page's own lines.
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, names)
    except Exception as error:
        raise BlockError(f"{block.place}: {traceback.format_exc()}") from error
    _tell(printed.getvalue())
    return printed.getvalue()


def _run_bash(block: Block) -> str:
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    if all(line[:1] == ["adaptune"] and line[1] in _ANSWER_AT_ONCE for line in lines if line):
        return "".join(_run_here(block, line[1:]) for line in lines if line)
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    _tell(done.stdout)
    if done.returncode:
        raise BlockError(f"{block.place}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _run_here(block: Block, arguments: Sequence[str]) -> str:
    """A command in this process: each process of its own would spend seconds on importing torch."""
    from orchestrator.cli import main as adaptune

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = adaptune(arguments)
    _tell(out.getvalue())
    if status:
        raise BlockError(f"{block.place}: exit status {status}\n{out.getvalue()}\n{err.getvalue()}")
    return out.getvalue()


def _tell(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def play_all(pages: Sequence[Path], root: Path, *, minutes: bool = False) -> dict[Path, str | None]:
    """Run pages, each in a folder below `root` or in that of the page it continues; why each failed, or None."""
    # This checkout's code and commands, no network, nothing kept outside the folder.
    for name in [name for name in os.environ if name.startswith(("ADAPTUNE_", "MLFLOW_", "RAY_"))]:
        del os.environ[name]
    os.environ |= {
        "ADAPTUNE_CACHE": str(root / "cache"),
        "COLUMNS": "120",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    faults: dict[Path, str | None] = {}
    for page in pages:
        for each in [before, page] if (before := page_before(page)) else [page]:
            if each in faults:
                continue
            _tell(f"== {each}\n")
            folder = folder_of(each, root)
            folder.mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
            try:
                play(each, minutes=minutes)
                faults[each] = None
            except BlockError as error:
                faults[each] = str(error)
                _tell(f"{error}\n")
    return faults


def folder_of(page: Path, root: Path) -> Path:
    """Where a page runs: a folder of its own, or that of the page it continues."""
    return root / (page_before(page) or page).relative_to(ROOT).with_suffix("")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 where every page did what it says, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs.play", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", action="store_true", help="run the blocks that take minutes too")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="run there and write faults.json; else leave nothing"
    )
    parser.add_argument("pages", nargs="*", type=Path, help="all of them by default")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="adaptune-pages-") as scratch:
        root = given.into or Path(scratch)
        faults = play_all([path.resolve() for path in given.pages] or PAGES, root, minutes=given.minutes)
        os.chdir(ROOT)
        text = json.dumps({str(page.relative_to(ROOT)): fault for page, fault in faults.items()}, indent=2)
        (root / "faults.json").write_text(text, encoding="utf-8")
    failed = [str(page) for page, fault in faults.items() if fault]
    _tell(f"failed: {', '.join(failed)}\n" if failed else "Every page does what it says.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
