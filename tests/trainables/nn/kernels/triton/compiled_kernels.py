"""Compiles the kernels for an H100, which needs no GPU: what the interpreter forgives, the compiler does not.

A program of its own: kernels that were defined for the interpreter cannot be compiled.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trainables.nn.kernels.triton import adamw, bottleneck, dropout, embedding, layernorm, pooling

TARGET = GPUTarget("cuda", 90, 32)
MOST_SHARED_BYTES = 99 * 1024  # what a program may have on the smaller cards of the last years
WIDTH, ROWS, COLUMNS = 384, *layernorm.tile_of(384)
INTEGERS = {
    "site", "per_trial", "blocks", "strips", "first_strips", "first_segments", "second_strips", "width", "step", "size",
    "share", "parts", "num_decayed", "num_rows", "num_sequences", "num_types", "offset",
}  # fmt: skip
TYPES = {
    "eps": "fp32",
    "scale": "fp32",
    **dict.fromkeys(("seeds", "steps", "owners", "ids", "row_positions", "types"), "*i64"),
    **dict.fromkeys(("places", "positions", "starts", "lengths"), "*i32"),
    **dict.fromkeys(("rstd_out", "rstd_in", "weight_parts", "bias_parts", "first_parts", "second_parts"), "*fp32"),
}


def compile_kernel(kernel: triton.JITFunction, constants: Mapping[str, object], types: Mapping[str, str]) -> None:
    """With rows of bf16 where `types` says nothing else."""
    signature = {}
    for name in kernel.arg_names:
        known = "i32" if name in INTEGERS or name.endswith("_step") else TYPES.get(name, "*bf16")
        signature[name] = "constexpr" if name in constants else types.get(name, known)
    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    given = {name: value for name, value in constants.items() if name not in options}
    compiled = triton.compile(ASTSource(kernel, signature, given), target=TARGET, options=options)
    assert compiled.metadata.shared <= MOST_SHARED_BYTES, f"{kernel.__name__} takes {compiled.metadata.shared} bytes"


def main() -> None:
    tile = {"WIDTH": WIDTH, "ROWS": ROWS, "COLUMNS": COLUMNS}
    compile_kernel(dropout._multiply, tile, {"rates": "*fp32"})
    compile_kernel(embedding._embed, tile | {"HAS_TYPES": True, "DROPS": True}, {"rates": "*fp32"})
    flags = {"ADDS": True, "DROPS": True, "KEEPS": True}
    compile_kernel(layernorm._forward, tile | flags, {"rates": "*fp32"})
    nothing = dict.fromkeys(("residual", "normed_out", "rstd_out", "seeds", "steps", "rates", "places", "positions"))
    compile_kernel(layernorm._forward, tile | dict.fromkeys(flags, False) | nothing, {})
    flags = dict.fromkeys(("DROPS", "GIVES_X", "GIVES_RESIDUAL", "GIVES_WEIGHT", "GIVES_BIAS"), True)
    compile_kernel(layernorm._backward, tile | flags | {"STRIP": layernorm._STRIP}, {"rates": "*fp32"})
    compile_kernel(layernorm._sum_strips, {"PARTS": layernorm._PARTS, "COLUMNS": 64}, {"second_sums": "*fp32"})
    compile_kernel(adamw._sum_squares, {"BLOCK": adamw._BLOCK}, {"grads": "*fp32", "squares": "*fp32"})
    numbers = {"EPS": 1e-6, "FIRST": 0.9, "SECOND": 0.999, "COPIES": True, "PARTS": 256, "BLOCK": adamw._BLOCK}
    of_trials = dict.fromkeys(("rates", "decays", "max_norms"), "*fp64")
    of_values = dict.fromkeys(("values", "grads", "exp_avg", "exp_avg_sq", "squares"), "*fp32")
    compile_kernel(adamw._update, numbers, of_trials | of_values)
    for size in (8, bottleneck._LARGEST):
        constants = bottleneck._constants(WIDTH, size, F.gelu)
        compile_kernel(bottleneck._forward, constants, {})
        compile_kernel(bottleneck._backward_rows, constants | {"ADDS": True}, {})
        compile_kernel(bottleneck._backward_weights, constants, {})
    tile = {"WIDTH": WIDTH, "ROWS": pooling._ROWS, "COLUMNS": pooling._COLUMNS}
    compile_kernel(pooling._mean, tile, {})
    compile_kernel(pooling._spread, tile, {})


if __name__ == "__main__":
    main()
