from __future__ import annotations

import numpy as np

from orchestrator.analysis.questions.placement import Box, Label, place

FRAME = Box(left=0, bottom=0, width=1000, height=600)


def label(*points: tuple[float, float, float], width: float = 120) -> Label:
    return Label(width=width, height=20, curve=np.array(points, dtype=float))


def test_a_lone_name_stands_right_of_the_end_of_its_curve() -> None:
    (box,) = place([label((100, 200, 300), (500, 240, 260))], FRAME, gap=10)
    assert (box.left, box.bottom) == (510, 240)


def test_a_name_keeps_off_the_frame_and_off_curves_and_other_names() -> None:
    labels = [
        label((100, 300, 320), (980, 300, 320)),
        label((150, 310, 315), (970, 330, 340)),
        label((990, 310, 310)),
    ]
    boxes = place(labels, FRAME, gap=10)
    for index, box in enumerate(boxes):
        assert box.overlap(FRAME) == box.width * box.height
        assert all(box.overlap(other) == 0 for other in boxes[:index])
        # All curves lie between these heights.
        assert box.bottom >= 340 or box.bottom + box.height <= 300


def test_equal_labels_are_placed_equally() -> None:
    labels = [label((100, 200, 300), (500, 240, 260)), label((490, 230, 270))]
    assert place(labels, FRAME, gap=10) == place(labels, FRAME, gap=10)
