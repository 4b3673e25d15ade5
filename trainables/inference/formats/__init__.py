"""Formats of other libraries that a saved adapter can be written in, one a file.

To add one, write `trainables/inference/formats/<name>.py`, which holds what `Format` says. Whatever is written is
opened again and asked before it is handed over: it answers as the adapter does, or is refused.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from trainables.data.paths import given_path
from trainables.discovery import load_plugin, plugin_names
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.inference.predictor import Predictor

# Outputs (S, C), or (S, L, C), for the padded inputs that a tokenizer of transformers gives.
Answer = Callable[[Mapping[str, "Tensor"]], "Tensor"]


class Format(Protocol):
    """What a file in this folder holds. `NEEDS` are the packages it imports, and the extra that brings them."""

    NEEDS: tuple[tuple[str, ...], str]

    def write(self, predictor: Predictor, folder: Path) -> None:
        """Write a trained model into an empty folder. Raises `ValueError` with the reason where the format cannot."""
        ...

    def open_(self, predictor: Predictor, folder: Path) -> Answer:
        """Open what was written as a user of the other library does, by that library where it can be had here."""
        ...


def format_names() -> list[str]:
    """The known formats."""
    return plugin_names(sys.modules[__name__])


def get_format(name: str) -> Format:
    """A format by name. Raises `FaultsError` naming the known ones, and where the library it needs is missing."""
    found = cast(Any, load_plugin(sys.modules[__name__], "format", name))
    packages, extra = found.NEEDS
    for package in packages:
        try:
            __import__(package)
        except ImportError:
            fix = f"pip install 'adaptune[{extra}]'"
            raise FaultsError(f"format {name}", [f"needs the package {package}: {fix}"]) from None
    return cast(Format, found)


def check_target(command: str, to: str, folder: Path) -> Format:
    """The format to write in a folder. Raises `FaultsError` where there is none, or the folder is in use."""
    chosen = get_format(to)
    try:
        is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise FaultsError(command, [f"out: must be a folder that can be read, but {error}"]) from None
    if not is_free:
        raise FaultsError(command, [f"out: must be a new or empty folder, but {folder} is not"])
    return chosen


def convert(path: str | Path, to: str, out: str | Path) -> Path:
    """Write a saved adapter in the format of another library, and give the folder.

    Args:
        path: the saved adapter.
        to: the name of a format, such as "peft".
        out: the folder to write; it must be new or empty.

    Raises `FaultsError` where the adapter is faulty, where the format has no equal of it (with the reason), and where
    what was written does not answer as the adapter does.
    """
    from trainables.inference.equal_answers import difference
    from trainables.inference.saved_adapter import load
    from trainables.inference.stock_model import quietly

    folder = given_path("convert", "out", out)
    chosen = check_target("convert", to, folder)
    predictor = load(path)
    predictor.model.eval()
    whole = Path(os.path.abspath(folder))  # "." has no name
    beside = None
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        # On the same disk, under a name that nothing there has.
        beside = Path(tempfile.mkdtemp(dir=whole.parent, prefix=".adaptune-convert-"))
        (fresh := beside / "written").mkdir()
        with quietly():
            chosen.write(predictor, fresh)
            fault = difference(predictor, chosen.open_(predictor, fresh))
        if fault is not None:
            raise ValueError(fault)
        if folder.exists():  # and is empty; it may be where one stands
            for each in list(fresh.iterdir()):
                each.rename(folder / each.name)
        else:
            fresh.rename(folder)
    except OSError as error:
        raise FaultsError("convert", [f"out: must be a folder that can be written, but {error}"]) from error
    except (RuntimeError, ValueError) as reason:  # torch and the other library have words of their own
        rule = f"{predictor.config.method} on {predictor.task.name} has no equal in the format {to}"
        raise FaultsError("convert", [f"{rule}: {str(reason)[:500]}"]) from reason
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    return folder
