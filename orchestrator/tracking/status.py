"""Our words for the life of a trial in MLflow's, and back."""

from __future__ import annotations

from orchestrator.record import TrialStatus

# MLflow has no word for a trial that was stopped early on purpose: the tag `adaptune.status` tells it from one that
# the user stopped.
RUN_STATUS = {
    TrialStatus.PLANNED: "SCHEDULED",
    TrialStatus.RUNNING: "RUNNING",
    TrialStatus.COMPLETED: "FINISHED",
    TrialStatus.PRUNED: "KILLED",
    TrialStatus.FAILED: "FAILED",
    TrialStatus.CANCELLED: "KILLED",
}


def run_status(status: TrialStatus) -> str:
    """The status of the MLflow run of a trial."""
    return RUN_STATUS[status]


def trial_status(run_status: str, tag: str | None) -> TrialStatus:
    """The trial's status behind an MLflow run's, told apart by its `adaptune.status` tag where that agrees.

    Raises `ValueError` for a status that MLflow does not have.
    """
    candidates = [status for status, name in RUN_STATUS.items() if name == run_status]
    if not candidates:
        raise ValueError(f"unknown MLflow run status {run_status!r}")
    return next((status for status in candidates if status.value == tag), candidates[-1])
