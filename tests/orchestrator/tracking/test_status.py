from __future__ import annotations

import pytest

from orchestrator.record import TrialStatus
from orchestrator.tracking.status import run_status, trial_status


@pytest.mark.parametrize("status", TrialStatus)
def test_every_status_of_a_trial_comes_back_from_mlflow(status):
    assert trial_status(run_status(status), tag=status.value) is status


@pytest.mark.parametrize("name", ["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"])
@pytest.mark.parametrize("tag", [None, "completed", "nonsense"])
def test_every_status_of_mlflow_is_one_of_ours_that_leads_back_to_it(name, tag):
    assert run_status(trial_status(name, tag)) == name


def test_a_run_that_someone_killed_was_cancelled():
    assert trial_status("KILLED", tag="running") is TrialStatus.CANCELLED


def test_a_status_that_mlflow_does_not_have_is_refused():
    with pytest.raises(ValueError, match="unknown MLflow run status 'DONE'"):
        trial_status("DONE", tag=None)


def test_the_statuses_are_mlflow_s_own():
    from mlflow.entities import RunStatus

    known = {RunStatus.to_string(status) for status in RunStatus.all_status()}
    assert {run_status(status) for status in TrialStatus} == known
