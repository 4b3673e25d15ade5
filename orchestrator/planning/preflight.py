"""A short look at the data of a sweep before it trains: what is odd in them, as `adaptune data` says at length."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.planning.plan import SweepPlan
from orchestrator.planning.task_method import DEFAULT_MAX_LENGTH
from orchestrator.spec.space import values_of
from trainables import tasks
from trainables.data.audit.examine import BRIEF, examine
from trainables.data.folding import fold_of

SCHEMA = pa.schema({"task": pa.string(), "warning": pa.string(), "sentence": pa.string()})


def data_warnings(plan: SweepPlan) -> pa.Table:
    """A row per warning about the tasks whose data are here, of `SCHEMA`; those that a task silences are left out.

    Of a task that is cut into folds, its first fold is looked at. Texts are held to the largest max_length of the
    space. Of large tasks a sample is looked at, so that a task costs a fraction of a second. Raises `FaultsError` where
    the backbone's tokenizer is damaged.
    """
    spec = plan.spec
    lengths = [int(value) for value in values_of(spec.space.get("max_length", DEFAULT_MAX_LENGTH))]  # type: ignore[arg-type]
    here = {each.reference: each.task for each in plan.task_methods if each.task.fingerprint}
    rows: dict[tuple[str, str], dict[str, str]] = {}  # by task and warning: what only a tokenizer shows may come twice
    for reference, preview in here.items():
        name, task = preview.info.name, tasks.load(reference)
        if preview.folds is not None:
            task = fold_of(task, preview.folds, 0)
        for backbone in spec.backbones:
            found = examine(task, backbone=backbone, max_length=max(lengths), effort=BRIEF)
            for warning in found.warnings:
                row = {"task": name, "warning": warning.name, "sentence": warning.sentence}
                rows.setdefault((name, warning.name), row)
    return pa.Table.from_pylist(list(rows.values()), schema=SCHEMA)
