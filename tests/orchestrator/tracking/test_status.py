from __future__ import annotations

from orchestrator.record import TrialStatus
from orchestrator.tracking.status import run_status


def test_the_statuses_are_mlflow_s_own():
    from mlflow.entities import RunStatus

    known = {RunStatus.to_string(status) for status in RunStatus.all_status()}
    assert {run_status(status) for status in TrialStatus} == known


def test_only_a_pruned_and_a_cancelled_trial_show_the_same():
    """Which of the two a run was, its tag `adaptune.status` tells."""
    killed = [status for status in TrialStatus if run_status(status) == "KILLED"]
    assert killed == [TrialStatus.PRUNED, TrialStatus.CANCELLED]
    assert len({run_status(status) for status in TrialStatus}) == len(TrialStatus) - 1
