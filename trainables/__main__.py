"""Train one trial from the command line: `python -m trainables --task toy/sentiment --method adapter`.

Needs neither Ray nor MLflow. Prints JSON lines: one an epoch, then one with the outcome.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.config import HYPERPARAMETERS, TrialConfig
from trainables.data.paths import given_path
from trainables.faults import FaultsError
from trainables.inference.saved_names import check_free
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrialConfig)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 completed, 1 failed, 2 a fault in what was given."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        for name in ("config", "save", "predictions"):  # a shell expands no ~ after --save=
            if (path := getattr(given, name)) is not None:
                setattr(given, name, given_path("command line", f"--{name}", path))
        config = _config(given) if given.config is None else _read_config(given, parser)
        _check(config, given.predictions, given.save)
        config = _used_alone(config)
    except FaultsError as error:
        print(error, file=sys.stderr)
        return 2
    from trainables.engine.engine import (
        Engine,  # here, not above: `--help` and faults of the command line need no torch
    )

    try:
        engine = Engine(device=given.device, num_threads=given.threads)
    except FaultsError as error:
        print(error, file=sys.stderr)
        return 2
    outcome = engine.run(
        config, report=_print_epoch, save_to=given.save, keep_predictions=given.predictions is not None
    )
    values = dataclasses.asdict(dataclasses.replace(outcome, predictions={}))
    del values["epochs"], values["predictions"], values["weights"]  # printed as they came, and written to their file
    print(json.dumps({"event": "outcome", **values}), flush=True)
    if outcome.status is not OutcomeStatus.COMPLETED:
        return 1
    if given.predictions is not None:
        try:
            _write_predictions(given.predictions, outcome)
        except OSError as error:
            print(f"--predictions: the file must be writable, but {error}", file=sys.stderr)
            return 2
    return 0


def _write_predictions(path: Path, outcome: TrialOutcome) -> None:
    import pyarrow.parquet

    from trainables.predictions import predictions_table

    pyarrow.parquet.write_table(predictions_table(outcome.predictions), path, compression="zstd")


def _check(config: TrialConfig, predictions: Path | None, save: Path | None) -> None:
    """Raise one `FaultsError` with every fault of the task, the backbone, the method and the files to write."""
    from trainables import tasks
    from trainables.backbones.loading import STAND_IN_SHAPE, describe_backbone
    from trainables.estimate.preview import length_faults
    from trainables.methods import kind_faults, method_names, parse_options, trial_faults, uses_backbone
    from trainables.training.loss import class_weight_faults
    from trainables.training.running_trial import num_steps

    faults: list[str] = []
    backbone = shape = task = None
    reads_backbone = config.method not in method_names() or uses_backbone(config.method)
    try:
        task = tasks.load_trial(config)
    except FaultsError as error:
        faults += error.faults
    try:
        backbone = describe_backbone(config.backbone) if reads_backbone else None
        shape = backbone.shape if backbone is not None else STAND_IN_SHAPE
    except FaultsError as error:
        faults += error.faults
    try:
        parse_options(config.method, config.method_options, shape)
        if task is not None:
            faults += kind_faults(config.method, task.info)
            faults += class_weight_faults(config.class_weights, task.info)
            faults += length_faults(backbone, config.method, task.info, config.max_length)
        if shape is not None and config.max_length <= shape.max_length:
            # How many windows questions make, and so the steps, the tokenizer decides.
            steps = None
            if task is not None and task.info.kind != "extractive_qa":
                steps = num_steps(config, task.splits["train"].num_rows)
            faults += trial_faults(config, shape, steps)
    except FaultsError as error:
        faults += error.faults
    if predictions is not None and (fault := _file_fault(predictions)):
        faults.append(f"--predictions: must be a file in a folder that exists, but {fault}")
    if save is not None:
        faults += _save_faults(save)
    if shape is not None and config.max_length > shape.max_length:
        rule = f"must be at most {shape.max_length}, the backbone's positions"
        faults.append(f"max_length: {rule}, but got {config.max_length}")
    if faults:
        raise FaultsError("trial", faults)


def _file_fault(path: Path) -> str | None:
    """Why a file cannot be written at a path, as far as can be seen before anything is trained for it."""
    try:
        if not path.parent.is_dir():
            return f"{path.parent} is none"
        if path.is_dir():
            return f"{path} is a folder"
        return None if os.access(path if path.exists() else path.parent, os.W_OK) else f"{path} cannot be written"
    except OSError as error:  # such as too long a name
        return str(error)


def _save_faults(folder: Path) -> list[str]:
    """Why an adapter cannot be saved in a folder, as far as can be seen before it is trained."""
    try:
        there = next(each for each in (folder, *folder.parents, Path()) if each.exists())
        if not there.is_dir():
            return [f"--save: must be a folder or a new one, but {there} is a file"]
        if not os.access(there, os.W_OK):
            return [f"--save: must be a folder that can be written, but {there} cannot"]
        check_free("trial", "--save", folder)
    except OSError as error:
        return [f"--save: must be a folder that can be written, but {error}"]
    except FaultsError as error:
        return list(error.faults)
    return []


def _used_alone(config: TrialConfig) -> TrialConfig:
    from trainables.methods import used_alone

    return used_alone(config)


def _print_epoch(epoch: EpochReport) -> bool:
    print(json.dumps({"event": "epoch", **dataclasses.asdict(epoch)}), flush=True)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainables", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, help="a TrialConfig as a JSON file, instead of the options below")
    parser.add_argument("--task", help="toy/sentiment, glue/cola, or the path of a task folder")
    parser.add_argument("--backbone", default="minilm", help="packaged encoder, local path or hub id")
    parser.add_argument("--method", default="adapter", help="its name; adapter by default")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the method")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random; 0 by default")
    parser.add_argument("--folds", type=int, help="cut the rows of train and validation into so many folds")
    parser.add_argument("--fold", type=int, help="the one to validate on, from 0; the others are trained on")
    for name in HYPERPARAMETERS:
        default = json.dumps(_DEFAULTS[name])
        parser.add_argument(f"--{name.replace('_', '-')}", type=_json_or_text, help=f"{default} by default")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help="keep the trained weights in a new or empty folder, or in a saved adapter's place",
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="write what it predicts of each row, as Parquet"
    )
    parser.add_argument("--device", type=_device, help="cpu, cuda, cuda:1; the first GPU by default")
    parser.add_argument("--threads", type=_threads, help="CPU threads")
    return parser


def _read_config(given: argparse.Namespace, parser: argparse.ArgumentParser) -> TrialConfig:
    """The configuration in a file, which must be all that is said of the trial. Raises `FaultsError`."""
    try:
        values = json.loads(given.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FaultsError("command line", [f"--config: must be a JSON file that can be read, but {error}"]) from None
    if not isinstance(values, dict):
        raise FaultsError("command line", ["--config: must be a JSON object, a key for each value of the trial"])
    names = ("task", "backbone", "method", "option", "seed", "folds", "fold", *HYPERPARAMETERS)
    if beside := [name for name in names if getattr(given, name) != parser.get_default(name)]:
        listed = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in beside))
        raise FaultsError("command line", [f"--config: must be all there is of the trial, but got {listed} too"])
    return TrialConfig.from_dict(values)


def _config(given: argparse.Namespace) -> TrialConfig:
    options: dict[str, Any] = {}
    faults = []
    for text in given.option:
        key, equals, value = text.partition("=")
        if equals:
            options[key] = _json_or_text(value)
        else:
            faults.append(f"--option: must be KEY=VALUE, but got {text!r}")
    values = {name: getattr(given, name) for name in HYPERPARAMETERS if getattr(given, name) is not None}
    values |= {name: getattr(given, name) for name in ("task", "backbone", "method", "seed", "folds", "fold")}
    try:
        config = TrialConfig(method_options=options, **values)
    except FaultsError as error:
        faults += error.faults
    if faults:
        raise FaultsError("command line", faults)
    return config


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, but got {text!r}")
    return text


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, but got {text!r}")
    return int(text)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    sys.exit(main())
