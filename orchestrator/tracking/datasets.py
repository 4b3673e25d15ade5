"""What MLflow shows of the data of a task: a dataset, the input of the runs that train on it. Knows no MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

# How much of a fingerprint is shown as the digest; MLflow takes 36 characters, and its tables have room for fewer.
_DIGEST = 12
# The tag of an input that says what the run used it for.
CONTEXT_KEY, CONTEXT = "mlflow.data.context", "training"


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The data of one task."""

    task: str  # the task's name
    reference: str  # how the sweep names it: a name or the path of a folder
    fingerprint: str  # of its content
    rows: Mapping[str, int] = field(default_factory=dict)  # split -> how many
    folds: int | None = None  # into how many train and validation are cut
    kind: str | None = None
    metric: str | None = None

    @property
    def digest(self) -> str:
        """The beginning of the fingerprint; the profile has it whole."""
        return self.fingerprint[:_DIGEST]

    @property
    def source_type(self) -> str:
        """MLflow's word for files of a file system; ours for a task that is known by name."""
        return "local" if PurePath(self.reference).is_absolute() else "adaptune"

    @property
    def source(self) -> str:
        """Where the data come from, as JSON."""
        return json.dumps({"uri": self.reference} if self.source_type == "local" else {"task": self.reference})

    @property
    def profile(self) -> str:
        """What MLflow's page lists of the dataset, as JSON."""
        rows = {f"{split}_rows": count for split, count in self.rows.items()}
        known = {"folds": self.folds, "kind": self.kind, "metric": self.metric, "fingerprint": self.fingerprint}
        total = {"num_rows": sum(self.rows.values())} if self.rows else {}
        return json.dumps({**total, **rows, **{key: value for key, value in known.items() if value}})
