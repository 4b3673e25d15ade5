"""What products are computed in on a device: bf16 where it computes in it, else float32."""

from __future__ import annotations

import torch

from trainables.config import PRECISIONS
from trainables.device.current import working_on
from trainables.faults import FaultsError, unknown_name


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of products: "auto" is bf16 where the device computes in it, float32 elsewhere.

    Raises `FaultsError` where there is no such precision.
    """
    if precision not in PRECISIONS:
        raise FaultsError("precision", [f"precision: {unknown_name('precision', precision, PRECISIONS)}"])
    if precision == "auto":
        precision = "bf16" if _has_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with working_on(device):  # torch answers for the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available() and _cpu_has_bf16())


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
