"""Whether the GPU computes what the CPU computes: the same trials, step by step on both, in float32.

Without dropout both must agree to rounding. With dropout they can agree only where both devices draw the same masks.
Whether they do shows in the losses of the first step, taken before any weight has moved: equal masks leave rounding,
about 1e-6, and other masks differ by about a hundredth. Where they agree, losses and weights are compared number by
number; where they do not, only what dropout should leave alone on average can be: the mean loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gpu.packs import MeasuredPack, encoder, ragged_split, trial_config
from benchmarks.gpu.record import Quantity, measured, unmeasured
from benchmarks.gpu.run import Run

LONGEST = 32
LEARNING_RATE = 1e-3
# Losses of the first step that differ by less than this come from the same masks.
SAME_MASKS = 1e-4
DIFFERENT = "the two devices draw different masks, so single numbers cannot agree"


@dataclass(frozen=True, kw_only=True)
class BothSides:
    """What the two devices computed; the GPU comes first.

    Suffixes: T steps, K trials, P trained numbers.
    """

    losses_2TK: np.ndarray
    start_2KP: np.ndarray
    end_2KP: np.ndarray

    @property
    def same_masks(self) -> bool:
        first_2K = self.losses_2TK[:, 0]
        return bool(np.abs(first_2K[0] - first_2K[1]).max() < SAME_MASKS)


def measure(run: Run) -> None:
    if run.device.type == "cpu":
        run.note("a rehearsal: both sides are this CPU, so all differences are 0")
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # no TF32
    try:
        for dropout in (0.0, None):
            where = {"dropout": "off" if dropout == 0 else "on"}
            both = _both(run, dropout)
            if both is None:
                run.leave_out(where, {"steps": ""})
                continue
            run.add(where, compare(both))
            if not both.same_masks:
                run.note(f"dropout {where['dropout']}: the masks differ; compared are means over steps and trials")
    finally:
        torch.set_float32_matmul_precision(allowed)


def _both(run: Run, dropout: float | None) -> BothSides | None:
    """In step, so that both have taken as many steps when time is up; None where there was no time for one."""
    sizes = run.sizes
    configuration = next(iter(run.sizes.backbones.values()))
    rows = ragged_split(LONGEST, configuration["vocab_size"], sizes.correctness_steps * sizes.batch_size)
    chosen = {"num_epochs": 1, "learning_rate": LEARNING_RATE, "dropout": dropout, "precision": "fp32"}
    configs = [trial_config(sizes, seed, **chosen) for seed in range(sizes.correctness_trials)]
    devices = (run.device, torch.device("cpu"))
    sides = [MeasuredPack(encoder(configuration, device, torch.float32), rows, configs) for device in devices]
    start = [side.weights() for side in sides]
    deadline = run.deadline.within(0.5) if dropout == 0 else run.deadline  # once everything is loaded
    losses: list[list[np.ndarray]] = []
    while len(losses) < sizes.correctness_steps and not deadline.has_passed():
        for side in sides:
            side.step()
        losses.append([side.take_losses() for side in sides])
    if not losses:
        return None
    if len(losses) < sizes.correctness_steps:
        run.left_out.append(f"{sizes.correctness_steps - len(losses)} of {sizes.correctness_steps} steps")
    end = [side.weights() for side in sides]
    return BothSides(losses_2TK=np.array(losses).swapaxes(0, 1), start_2KP=np.array(start), end_2KP=np.array(end))


def compare(both: BothSides) -> Mapping[str, Quantity]:
    """Every difference that means something."""
    losses, masks = both.losses_2TK, both.same_masks
    moved = [float(np.linalg.norm(each)) for each in both.end_2KP - both.start_2KP]
    numbers: dict[str, tuple[float, str]] = {
        "largest_loss_difference": (float(np.abs(losses[0] - losses[1]).max()), "nats"),
        "largest_weight_difference": (float(np.abs(both.end_2KP[0] - both.end_2KP[1]).max()), ""),
        "weight_difference_of_distance_moved": (
            float(np.linalg.norm(both.end_2KP[0] - both.end_2KP[1])) / max(moved[1], 1e-30),
            "share",
        ),
    }
    per_trial = (losses[0] - losses[1]).mean(axis=0)
    error = float(per_trial.std(ddof=1)) / len(per_trial) ** 0.5 if len(per_trial) > 1 else float("nan")
    return {
        "steps": measured(losses.shape[1], ""),
        "trials": measured(losses.shape[2], ""),
        "masks": measured("agree" if masks else "differ", ""),
        "largest_first_weight_difference": measured(float(np.abs(both.start_2KP[0] - both.start_2KP[1]).max()), ""),
        **{
            name: measured(value, unit) if masks else unmeasured(unit, DIFFERENT)
            for name, (value, unit) in numbers.items()
        },
        "mean_loss": measured(float(losses[0].mean()), "nats"),
        "mean_loss_on_cpu": measured(float(losses[1].mean()), "nats"),
        "standard_error_of_their_difference": measured(error, "nats"),
        "distance_moved_of_that_on_cpu": measured(moved[0] / max(moved[1], 1e-30), "share"),
    }
