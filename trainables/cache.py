"""Where things are kept that can be made again: compiled kernels, tokenised rows, what was fetched."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder that ADAPTUNE_CACHE names, else one in the user's home. It may not be there yet.

    Raises `RuntimeError` where the user has no home.
    """
    return Path(os.environ.get("ADAPTUNE_CACHE") or Path.home() / ".cache" / "adaptune").expanduser()
