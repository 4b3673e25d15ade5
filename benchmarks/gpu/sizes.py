"""How large everything is: on a GPU, in a hurry, and in a rehearsal on a CPU, which only shows that all parts work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.packing import SHAPES

_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
BACKBONES: Mapping[str, Mapping[str, Any]] = {name: SHAPES[name] for name in ("minilm", "bert-base")}
REHEARSED: Mapping[str, Mapping[str, Any]] = {
    "tiny": BACKBONES["minilm"] | _TINY,
    "small": BACKBONES["minilm"] | _TINY | {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 512},
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured at which sizes.

    The first of the backbones stands for all where a part looks at one only. `limit_s` leaves a little of what was
    promised to whoever waits, for a last step that takes longer than expected and for the end of the process.
    """

    limit_s: float
    backbones: Mapping[str, Mapping[str, Any]]  # name -> configuration, as in a config.json
    lengths: Sequence[int] = (16, 32, 128)
    batch_size: int = 32
    adapter_size: int = 64
    lora_rank: int = 8
    lora_alpha: int = 16
    correctness_trials: int = 4
    correctness_steps: int = 20
    launch_packs: Sequence[int] = (1, 8, 32)
    packs: Sequence[int] = (1, 4, 16, 32)
    largest_pack: int = 1024  # that is tried
    step_seconds: float = 1.5  # of timed steps at each point
    window_s: float = 6.0  # in which the opponents' steps are counted
    processes: int = 8  # of opponents at once
    sweep_rates: int = 10
    sweep_seeds: int = 10
    sweep_epochs: int = 3
    sweep_rows: int | None = None  # of training; None: all
    alone: int = 3  # trials of the sweep that are trained again, alone
    memory_packs: Sequence[int] = (1, 8, 32)
    profile_pack: int = 16


FULL = Sizes(limit_s=400, backbones=BACKBONES)
QUICK = replace(FULL, limit_s=105, step_seconds=0.4, window_s=3.0, sweep_rows=256, alone=2)
REHEARSAL = replace(
    FULL,
    limit_s=400,
    backbones=REHEARSED,
    lengths=(16, 32),
    batch_size=8,
    adapter_size=8,
    packs=(1, 4, 8),
    largest_pack=12,
    step_seconds=0.05,
    window_s=1.0,
    processes=2,
    sweep_rates=3,
    sweep_seeds=4,
    sweep_rows=64,
    alone=2,
    memory_packs=(1, 8),
    profile_pack=4,
)


def sizes(*, device: str, quick: bool) -> Sizes:
    """Those of a run. A rehearsal's are small either way; in a hurry it has less time."""
    if device == "cpu":
        return replace(REHEARSAL, limit_s=165) if quick else REHEARSAL
    return QUICK if quick else FULL
