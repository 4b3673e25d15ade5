"""What has to be installed, asked before anything is imported that needs it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

# Imported under this name -> how it is installed. Without these nothing can be measured.
NEEDED: Mapping[str, str] = {
    "torch": "torch",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface-hub",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
}
# Without one of these, some parts lack what their note says.
USEFUL: Mapping[str, tuple[str, str]] = {
    "accelerate": ("accelerate", "the opponents are not measured, as transformers' Trainer needs it"),
    "peft": ("peft", "its LoRA is no opponent"),
    "sklearn": ("scikit-learn", "the sweep is scored by the share of right answers, counted by this benchmark"),
}


def is_installed(name: str) -> bool:
    """Whether a library can be imported; it is not."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # already imported, by a test that put something else in its place
        return False


def missing() -> list[str]:
    """What must be installed before anything can be measured, by the names that pip knows."""
    return [package for name, package in NEEDED.items() if not is_installed(name)]


def limits() -> list[str]:
    """What cannot be told for want of a library, a sentence each."""
    return [f"{package} is not installed: {loss}" for name, (package, loss) in USEFUL.items() if not is_installed(name)]
