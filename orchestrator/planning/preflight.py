"""A short look at the data of a sweep before it trains: what is odd in them, as `adaptune data` says at length."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from orchestrator.planning.plan import SweepPlan
from trainables import tasks
from trainables.data.audit.checks import ROWS_NEVER_TRAINED
from trainables.data.audit.examine import BRIEF, examine
from trainables.data.folding import fold_of

# The share of rows, of all epochs, that settings may leave out without a warning.
LEFT_OUT = 0.1

SCHEMA = pa.schema({"task": pa.string(), "warning": pa.string(), "sentence": pa.string()})


def data_warnings(plan: SweepPlan) -> pa.Table:
    """A row per warning about the tasks whose data are here, of `SCHEMA`; those that a task silences are left out.

    Of a task that is cut into folds, its first fold is looked at. Texts are held to the largest max_length at which any
    method of the sweep reads them in a backbone's word pieces. Of large tasks a sample is looked at, so that a task
    costs a fraction of a second. Raises `FaultsError` where the backbone's tokenizer is damaged.
    """
    spec = plan.spec
    here = {each.reference: each.task for each in plan.task_methods if each.task.fingerprint}
    rows: dict[tuple[str, str], dict[str, str]] = {}  # by task and warning: what only a tokenizer shows may come twice
    for reference, preview in here.items():
        name, task = preview.info.name, tasks.load(reference)
        if preview.folds is not None:
            task = fold_of(task, preview.folds, 0)
        for backbone in spec.backbones:
            length = _longest(plan, reference, backbone)
            found = examine(task, backbone=backbone, max_length=length, effort=BRIEF)
            for warning in found.warnings:
                row = {"task": name, "warning": warning.name, "sentence": warning.sentence}
                rows.setdefault((name, warning.name), row)
        if sentence := _never_trained(plan, reference, task.silence):
            rows[name, ROWS_NEVER_TRAINED] = {"task": name, "warning": ROWS_NEVER_TRAINED, "sentence": sentence}
    return pa.Table.from_pylist(list(rows.values()), schema=SCHEMA)


def _longest(plan: SweepPlan, reference: str, backbone: str) -> int:
    """The largest max_length of a task's trials on a backbone; where all read words of their own, of these trials."""
    from trainables.methods import reads_word_pieces

    of_task = [each for each in plan.task_methods if each.reference == reference]
    readers = [each for each in of_task if each.backbone_reference == backbone and reads_word_pieces(each.entry.method)]
    return max(length for each in readers or of_task for length in each.max_lengths)


def _never_trained(plan: SweepPlan, reference: str, silence: Collection[str]) -> str | None:
    """Says how many rows the settings of a task leave out, where those are many: steps are whole batches."""
    from trainables.methods import is_fitted

    if ROWS_NEVER_TRAINED in silence:
        return None
    previews = {each.reference: each.task for each in plan.task_methods}
    worst, said = LEFT_OUT, None
    for trial in plan.sample_trials():
        config, train_rows = trial.config, previews[trial.config.task].training_rows_of(trial.config.fold)
        if config.task != reference or trial.num_steps is None or not train_rows or is_fitted(config.method):
            continue
        every = train_rows * config.num_epochs
        left = every - trial.num_steps * config.batch_size
        if left / every < worst:
            continue
        worst = left / every
        said = (
            f"{left:,} of {every:,} rows of all epochs are trained on in no step at batch_size {config.batch_size} and "
            f"num_epochs {config.num_epochs} ({worst:.0%}), since steps are whole batches. Take smaller batches, or "
            "more epochs"
        )
    return said
