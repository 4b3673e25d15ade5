"""The kernels in Triton run in its interpreter here: it must be asked for before any of them is defined."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"
