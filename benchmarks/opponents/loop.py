"""The opponent "loop": a colleague who knows the Trainer and needs neither Ray nor MLflow.

One process a core, each with one thread, that takes the next trial as soon as it has ended one. Rows are tokenised once
and handed over as arrays, while the processes import what they train with; libraries and the encoder are loaded once a
process. How a trial is trained is in `loop_trial.py`. `python loop.py SETTINGS.json` prints one JSON line a trial.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from backbone import MAX_LENGTH, backbone_folder

Splits = Mapping[str, Mapping[str, np.ndarray]]  # by name; input_ids and token_type_ids end to end, offsets, labels


def tokenized(folder: Path) -> Splits:
    """The splits of a folder of Parquet files in word pieces; those to evaluate on in order of their length."""
    import pyarrow.parquet
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(backbone_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    splits = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pyarrow.parquet.read_table(path)
        texts = [table[name].to_pylist() for name in ("text_a", "text_b") if name in table.column_names]
        labels = table["label"].to_numpy()
        rows = tokenizer.encode_batch(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        order = range(len(rows))
        if path.stem != "train":
            order = sorted(order, key=lambda row: len(rows[row].ids))
        splits[path.stem] = {
            "input_ids": np.concatenate([np.array(rows[row].ids, dtype=np.int64) for row in order]),
            "token_type_ids": np.concatenate([np.array(rows[row].type_ids, dtype=np.int64) for row in order]),
            "offsets": np.cumsum([0, *(len(rows[row].ids) for row in order)]),
            "labels": labels[list(order)],
        }
    return splits


def prepare() -> None:
    """Load in a new process what its trials are trained with."""
    import loop_trial

    loop_trial.prepare()


def is_ready() -> bool:
    return True


def train_trial(trial: Mapping[str, Any], settings: Mapping[str, Any], splits: Splits) -> Mapping[str, Any]:
    """One trial in whichever process is free."""
    import loop_trial

    return loop_trial.train_trial(trial, settings, splits)


def main(settings: Mapping[str, Any]) -> None:
    cores = min(settings["cores"], len(settings["trials"]))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        for _ in range(cores):
            pool.submit(is_ready)  # starts a process
        splits = tokenized(Path(settings["data"]))
        trials = [pool.submit(train_trial, trial, settings, splits) for trial in settings["trials"]]
        for trial in as_completed(trials):
            print(json.dumps({"event": "trial", **trial.result()}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
