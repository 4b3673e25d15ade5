"""Where the names of curves go in a figure, so that none covers data or another name. Plain geometry, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Box:
    """An upright rectangle, y upwards."""

    left: float
    bottom: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """The shared area."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        along = min(self.bottom + self.height, other.bottom + other.height) - max(self.bottom, other.bottom)
        return max(across, 0.0) * max(along, 0.0)

    def padded(self, margin: float) -> Box:
        return Box(
            left=self.left - margin,
            bottom=self.bottom - margin,
            width=self.width + 2 * margin,
            height=self.height + 2 * margin,
        )


@dataclass(frozen=True, kw_only=True)
class Label:
    """A name to place: its size, and the curve it belongs to as `(num_points, 3)`: x, lowest y, highest y."""

    width: float
    height: float
    curve: np.ndarray


def place(labels: Sequence[Label], frame: Box, *, gap: float) -> list[Box]:
    """A box for each label, beside, above or below a point of its curve, `gap` pixels away or a little more.

    Takes labels in their order and gives each the box that costs least: covering other labels costs most, then
    leaving the frame, covering curves, coming close to another's curve; then distance, from the curve and along it
    from its end.
    """
    curves = [_covered(label.curve, gap) for label in labels]
    placed: list[Box] = []
    for index, label in enumerate(labels):
        others = [box for other, curve in enumerate(curves) if other != index for box in curve]

        def cost(
            option: tuple[Box, float], own: Sequence[Box] = curves[index], others: Sequence[Box] = others
        ) -> float:
            box, reluctance = option
            area = box.width * box.height
            outside = area - box.overlap(frame)
            over_labels = sum(box.padded(gap / 3).overlap(other) for other in placed)
            over_curves = sum(box.overlap(other) for other in (*own, *others))
            near_others = sum(box.padded(gap).overlap(other) for other in others)
            return (10 * over_labels + 5 * outside + 2 * over_curves + 0.5 * near_others) / area + reluctance

        placed.append(min(_candidates(label, gap), key=cost)[0])
    return placed


def _candidates(label: Label, gap: float) -> list[tuple[Box, float]]:
    """Boxes around each point of a label's curve from the last to the first, with how reluctantly each is taken."""
    found = []
    for from_end, (x, low, high) in enumerate(label.curve[::-1]):
        middle = (low + high - label.height) / 2
        corners = [(x + gap, middle, 0.0), (x - gap - label.width, middle, 0.1)]
        for step, distance in enumerate((0.6 * gap, gap, 2 * gap, 3 * gap, 4 * gap)):
            for left in (x - label.width / 2, x - label.width, x):
                corners.append((left, high + distance, 0.1 + 0.1 * step))
                corners.append((left, low - distance - label.height, 0.1 + 0.1 * step))
        for left, bottom, reluctance in corners:
            box = Box(left=left, bottom=bottom, width=label.width, height=label.height)
            found.append((box, reluctance + 0.05 * from_end))
    return found


def _covered(curve: np.ndarray, thickness: float, steps: int = 24) -> list[Box]:
    """The band along a curve, cut into thin upright boxes, `thickness` pixels high where the band has no height."""
    x, low, high = curve.T
    if len(x) == 1:
        edges = np.array([x[0] - thickness / 2, x[0] + thickness / 2])
    else:
        edges = np.unique(np.concatenate([np.linspace(x[0], x[-1], steps * (len(x) - 1) + 1), x]))
    centres = (edges[:-1] + edges[1:]) / 2
    return [
        Box(left=left, bottom=bottom - thickness / 2, width=right - left, height=top - bottom + thickness)
        for left, right, bottom, top in zip(
            edges[:-1], edges[1:], np.interp(centres, x, low), np.interp(centres, x, high), strict=True
        )
    ]
