"""Our words for the life of a trial in MLflow's."""

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
