"""`python -m tests.lengths`: names files and functions that have grown long. A hint to divide them by meaning."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 500, 100


def long_parts(path: Path, *, file_lines: int = FILE_LINES, function_lines: int = FUNCTION_LINES) -> Iterator[str]:
    """A sentence for the file, and for each of its functions, that has more lines than that."""
    text = path.read_text(encoding="utf-8")
    if (count := len(text.splitlines())) > file_lines:
        yield f"{path} has {count} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > function_lines:
                yield f"{path}:{node.lineno} {node.name} has {count} lines"


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    for path in map(Path, listed.splitlines()):
        if path.exists():
            sys.stderr.writelines(f"warning: {part}: can it be divided by meaning?\n" for part in long_parts(path))


if __name__ == "__main__":
    main()
