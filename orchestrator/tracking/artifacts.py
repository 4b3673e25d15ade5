"""Files made of a trial after its sweep, such as an ablation, in the trial's own run."""

from __future__ import annotations

import logging
from pathlib import Path

from orchestrator.secrets import masked
from orchestrator.tracking.address import database_file, given_tracking_uri
from orchestrator.tracking.runs import MlflowRuns

logger = logging.getLogger(__name__)


def log_trial_artifacts(
    sweep: str, trial_id: str, folder: Path, *, tracking_uri: str | None = None, window: MlflowRuns | None = None
) -> bool:
    """Copy the files below a folder to the artifacts of a trial's run, over those of the same names.

    Where the tracking store (`default_tracking_uri()` if none is named) has no run of the trial, nothing is made;
    where MLflow cannot be written or imported, that is said in a warning. Returns whether the files are there.
    """
    uri = window.tracking_uri if window else given_tracking_uri(tracking_uri)
    database = database_file(uri)
    if database is not None and not database.exists():
        return False  # connecting would make one
    window = window or MlflowRuns(uri, sweep)
    try:
        window.connect()
        run_id = window.find_trial(trial_id)
        if run_id is None:
            return False
        window.log_file(run_id, folder, None)
    except Exception as error:  # whatever MLflow, its database or the network raise
        why = masked(f"{type(error).__name__}: {error}")
        logger.warning("MLflow did not take the files of trial %s: %s", trial_id, why)
        return False
    return True
