"""Paths as users write them: any text, of which some name nothing that could ever be there."""

from __future__ import annotations

from pathlib import Path


def existing_path(reference: str) -> Path | None:
    """The file or folder that a text names, `~` expanded; None where there is none, or no path can be called so."""
    try:
        path = Path(reference).expanduser()
        return path if reference and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long a name, a zero byte, the home of nobody, links in a circle
        return None
