"""The window: what a sweep is doing, in MLflow. Never the truth; it can be lost and is refilled from the store.

The only room that imports mlflow, and only when a sweep writes to it.
"""

from orchestrator.tracking.address import (
    database_file,
    default_tracking_uri,
    given_tracking_uri,
    ui_command,
    ui_environment,
)
from orchestrator.tracking.artifacts import log_trial_artifacts
from orchestrator.tracking.datasets import TaskData
from orchestrator.tracking.registration import register_model
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.winner_models import WinnerModel

__all__ = [
    "TaskData",
    "Tracker",
    "WinnerModel",
    "database_file",
    "default_tracking_uri",
    "given_tracking_uri",
    "log_trial_artifacts",
    "register_model",
    "ui_command",
    "ui_environment",
]
