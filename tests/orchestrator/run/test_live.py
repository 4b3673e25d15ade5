"""What a sweep says of its progress can be read back from its log."""

from __future__ import annotations

import pytest

from orchestrator.analysis.text import wording
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run.live import LiveProgress, progress_in
from tests.factories import planned_trial, trial_record
from trainables.outcome import OutcomeStatus


class Log(LiveProgress):
    """Keeps what is said, and a line of progress after every trial."""

    def __init__(self) -> None:
        super().__init__({})
        self.text = "Running entrypoint for job mine\n"

    def say(self, line: str) -> None:
        self.text += f"{line}\n"

    def changed(self) -> None:
        pass

    def trial_ended(self, record: TrialRecord) -> None:
        super().trial_ended(record)
        self.say(self.line())


def test_the_trials_of_a_log_are_those_it_said_last() -> None:
    log = Log()
    assert progress_in(log.text) is None
    log.planned(1200, 0)
    assert progress_in(log.text) == (0, 1200)
    log.planned(1200, 1000)
    assert progress_in(log.text) == (1000, 1200)
    log.engines_ready(["vm", "vm"])
    for status in (OutcomeStatus.COMPLETED, OutcomeStatus.FAILED, OutcomeStatus.CANCELLED):
        log.trial_ended(trial_record(planned_trial(), status, error="worse: 5/6 trials done, so far"))
    assert progress_in(log.text) == (1002, 1200)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({TrialStatus.COMPLETED: 1}, (1, 1)),
        ({TrialStatus.COMPLETED: 1080, TrialStatus.PRUNED: 10, TrialStatus.FAILED: 2}, (1092, 1092)),
        ({TrialStatus.COMPLETED: 3, TrialStatus.CANCELLED: 2, TrialStatus.PLANNED: 4}, (3, 9)),
    ],
)
def test_the_status_line_that_a_sweep_ends_with_says_it_last(
    counts: dict[TrialStatus, int], expected: tuple[int, int]
) -> None:
    log = f"12 trials planned\n4/12 trials done, 2 running, 0 failed\n{wording.status_line(counts)}\n\nReport: x\n"
    assert progress_in(log) == expected
