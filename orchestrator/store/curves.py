"""Learning curves: the nested epochs of the records laid out as one row per trial and epoch."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_OF_THE_TRIAL = ("sweep", "trial_id", "config_id", "task", "method", "seed", "fold")


def epochs_table(trials: pa.Table) -> pa.Table:
    """One row per trial and epoch, of a table with the store's columns.

    Columns: sweep, trial_id, config_id, task, method, seed, fold, epoch, step, train/loss, validation_score, a
    `validation/<component>` for each one measured, duration_s. Trials without an epoch have no row.
    """
    nested = trials["epochs"].combine_chunks()
    parents = pc.list_parent_indices(nested)
    epochs = pc.list_flatten(nested)
    columns = {name: trials[name].take(parents) for name in _OF_THE_TRIAL}
    columns["epoch"] = pc.struct_field(epochs, "epoch")
    columns["step"] = pc.struct_field(epochs, "step")
    columns["train/loss"] = pc.struct_field(epochs, "train_loss")
    columns["validation_score"] = pc.struct_field(epochs, "validation_score")
    components = pc.struct_field(epochs, "validation")
    for name in sorted(pc.unique(components.keys).to_pylist()):
        columns[f"validation/{name}"] = pc.map_lookup(components, query_key=name, occurrence="first")
    columns["duration_s"] = pc.struct_field(epochs, "duration_s")
    return pa.table(columns)
