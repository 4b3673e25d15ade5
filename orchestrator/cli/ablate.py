"""`adaptune ablate`: what the adapters of each layer are worth to a trained trial (Figure 6 of Houlsby et al. 2019)."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from orchestrator.analysis.configurations import hyperparameter_columns
from orchestrator.analysis.files import csv_bytes, parquet_bytes
from orchestrator.analysis.questions.ablation import read, tabulate
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import tables
from orchestrator.cli.export import choose, recorded_config, take_kept, train_again
from orchestrator.cli.screen import console
from orchestrator.run.sweep import load_results
from orchestrator.store import Store

_METHOD = "adapter"
_ALWAYS_TOLD = {"adapter_size", "learning_rate", "num_epochs"}  # of a trial, beside what the sweep searched
_MOST_PRINTED = 12  # layers; the figure and the files have any number


def ablate_adapters(
    store: str,
    *,
    task: str | None,
    trial: str | None,
    split: str,
    again: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> int:
    """Evaluate a trial without the adapters of every span of layers, keep the answer and show it.

    An answer that is kept already is shown as it is, unless `again` asks for a new one. Exit status 1 where the trial
    had to be trained again and failed this time.
    """
    from orchestrator.tracking import given_tracking_uri

    given_tracking_uri(tracking_uri)
    opened, results, screen = Store(store), load_results(store), console(stderr=as_json)
    chosen = choose("ablate", results, task=task, trial=trial, method=None if trial else _METHOD)
    table = None if again else _kept(results, chosen["trial_id"], split)
    is_new = table is None
    if table is None:
        table = _ablate(opened, results, chosen, split, screen)
        if table is None:
            return 1
        _keep(opened, table, tracking_uri)
    place = f"{opened.uri.rstrip('/')}/artifacts/{chosen['trial_id']}"
    files = [f"{place}/{name}" for name in _names(split)]
    equal = _equals_record(table, chosen)
    if as_json:
        facts = {"trial_id": chosen["trial_id"], "task": chosen["task"], "split": split, "is_new": is_new}
        print(json.dumps({**facts, "equals_record": equal, "files": files, "spans": table.to_pylist()}))
        return 0
    _show(screen, table, chosen, equal)
    for file in files:
        screen.print(file, soft_wrap=True)
    return 0


def _kept(results: Results, trial_id: str, split: str) -> pa.Table | None:
    """The ablation of a trial that the store has already."""
    held = results.ablation()
    found = held.filter(pc.and_(pc.equal(held["trial_id"], trial_id), pc.equal(held["split"], split)))
    return found if len(found) else None


def _ablate(opened: Store, results: Results, chosen: dict[str, Any], split: str, screen: Console) -> pa.Table | None:
    """Ablate a trial with its weights as exported earlier, kept by its sweep, or trained again. None if that failed."""
    from trainables.inference.ablation import ablate_saved, check_ablation
    from trainables.inference.saved_names import CONFIG

    config = recorded_config(opened, chosen["trial_id"])
    check_ablation(config, split)
    with tempfile.TemporaryDirectory(prefix="adaptune-ablation-") as scratch:
        # Weights are read from local disks only, and a store elsewhere keeps none.
        is_local = opened.filesystem.type_name == "local"
        folder = Path(opened.path if is_local else scratch) / "adapters" / chosen["trial_id"]
        # Its configuration is written last: a folder that has one is whole.
        is_there = (folder / CONFIG).exists() or take_kept(opened, chosen, folder, screen)
        if not is_there and train_again(opened, chosen, folder, screen) is None:
            return None
        found = ablate_saved(folder, split, precision=config.precision)
    told = _ALWAYS_TOLD.union(results.searched())
    names = [name for name in hyperparameter_columns(results.trials()) if name in told]
    return tabulate(found, chosen, split=split, hyperparameters=names)


def _names(split: str) -> list[str]:
    """The files of an ablation, in the order they are written: where the last one is, all are."""
    stem = "ablation" if split == "validation" else f"ablation-{split}"
    return [f"{stem}.{kind}" for kind in ("csv", "png", "svg", "parquet")]


def _keep(opened: Store, table: pa.Table, tracking_uri: str | None) -> None:
    """Write an ablation below the store, then into the trial's run in MLflow, if there is one."""
    from orchestrator.analysis import figures
    from orchestrator.tracking import log_trial_artifacts

    first = table.slice(0, 1).to_pylist()[0]
    figure = figures.ablation_figure(table)
    content = [csv_bytes(table), figures.render(figure, "png"), figures.render(figure, "svg"), parquet_bytes(table)]
    files = dict(zip(_names(first["split"]), content, strict=True))
    opened.keep_artifacts(first["trial_id"], files)
    with tempfile.TemporaryDirectory(prefix="adaptune-ablation-") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        log_trial_artifacts(first["sweep"], first["trial_id"], Path(folder), tracking_uri=tracking_uri)


def _equals_record(table: pa.Table, chosen: dict[str, Any]) -> bool | None:
    """Whether the whole model scored what is recorded, but for the order of sums; None where nothing is recorded."""
    recorded = chosen.get(f"{table['split'][0].as_py()}_score")
    return None if recorded is None else math.isclose(table["whole_score"][0].as_py(), recorded, abs_tol=1e-5)


def _show(screen: Console, table: pa.Table, chosen: dict[str, Any], equal: bool | None) -> None:
    reading = read(table)
    screen.print(f"{reading.task}: {reading.setting}, trial {reading.trial_id}", soft_wrap=True)
    if equal is False:
        recorded = chosen[f"{table['split'][0].as_py()}_score"]
        screen.print(f"recorded score {recorded:.4f}, score of these weights {table['whole_score'][0].as_py():.4f}")
    screen.print(reading.sentence)
    if reading.num_layers <= _MOST_PRINTED:
        screen.print()
        screen.print(tables.to_rich(tables.ablation_table(table)))
        screen.print()
