"""`adaptune export`: the weights of the setting to ship.

Those of winners are in the store, unless its sweep says `keep: none`. A seed fixes a trial, so any other is trained
again, and its scores are held against its record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console

from orchestrator.analysis.configurations import best_replicate, replicate_of
from orchestrator.analysis.model_card import Standing, completed_card
from orchestrator.analysis.results import Results
from orchestrator.cli.hub import open_hub
from orchestrator.cli.screen import console
from orchestrator.record import TrialStatus, replicate
from orchestrator.run.sweep import load_results
from orchestrator.spec.spec import registered
from orchestrator.store import Store
from trainables.config import TrialConfig
from trainables.data.paths import given_path
from trainables.faults import FaultsError, unknown_name
from trainables.inference.formats import check_target, convert
from trainables.inference.saved_names import CARD, CONFIG, check_free, write_file, write_files
from trainables.outcome import TrialOutcome

_SCORES = ("validation_score", "test_score")


def export_adapter(
    store: str,
    *,
    task: str | None,
    trial: str | None,
    method: str | None,
    backbone: str | None,
    out: str | None,
    as_json: bool,
    to: str | None = None,
    push: str | None = None,
    public: bool = False,
    register_model: str | None = None,
    tracking_uri: str | None = None,
) -> int:
    """Write the chosen trial's weights, as they are kept or trained once more; exit status 1 where that failed.

    `to` is the format of another library to write them in, `push` a repository of the hub to send them to, which is
    made private unless it is to be `public`. `register_model` is the registered model of MLflow that they become a
    version of.
    """
    _check_registration(register_model, tracking_uri)
    if public and push is None:
        raise FaultsError("export", ["--public: says how to push, so it needs --push"])
    opened, results = Store(store), load_results(store)
    hub = None if push is None else open_hub(push, public=public)
    chosen = choose("export", results, task=task, trial=trial, method=method, backbone=backbone)
    if out is None and opened.filesystem.type_name != "local":
        raise FaultsError("export", [f"--out: is required, since {opened.uri} is not a local folder"])
    name = chosen["trial_id"] if to is None else f"{chosen['trial_id']}-{to}"
    target = given_path("export", "--out", out) if out is not None else Path(opened.path) / "adapters" / name
    if to is None:
        check_free("export", "--out", target)
    else:
        check_target("export", to, target)
    _check_writable(target)
    # What another format is written from lies on the same disk, under a name that nothing there has.
    folder = target if to is None else _fresh_folder(target.absolute().parent)
    screen = console(stderr=as_json)
    try:
        origin, scores = "kept", {name: chosen[name] for name in _SCORES}
        equals_record = True
        if not take_kept(opened, chosen, folder, screen):
            outcome = train_again(opened, chosen, folder, screen)
            if outcome is None:
                return 1
            origin, scores = "trained again", {name: getattr(outcome, name) for name in _SCORES}
            equals_record = _is_as_recorded(outcome, chosen)
        standing = _standing(opened, results, chosen, folder)
        if to is not None:
            convert(folder, to, target)
        _complete_card(target, standing)
        version = None if register_model is None else _register(opened, chosen, folder, register_model, tracking_uri)
    finally:
        if to is not None:
            shutil.rmtree(folder, ignore_errors=True)
    pushed = None if hub is None else hub.push(target)
    if as_json:
        answer = {
            "folder": str(target),
            "trial_id": chosen["trial_id"],
            "task": chosen["task"],
            "backbone": chosen["backbone"],
            **scores,
            "equals_record": equals_record,
            "weights": origin,
            **({} if pushed is None else {"pushed": pushed}),
            **({} if version is None else {"registered": version}),
        }
        print(json.dumps(answer))
        return 0
    screen.print(str(target), soft_wrap=True)
    for address in (pushed, version):
        if address is not None:
            screen.print(address, soft_wrap=True)
    return 0


def _complete_card(folder: Path, standing: Standing) -> None:
    card = folder / CARD
    write_file(card, completed_card(card.read_text(encoding="utf-8"), standing).encode())


def _standing(store: Store, results: Results, chosen: Mapping[str, Any], folder: Path) -> Standing:
    """What the store knows of the trial whose weights lie in a folder, for its card.

    Whichever of the store's sweeps had them trained, all replicates and settings count that it was chosen among.
    """
    trials = [row for row in results.trials().to_pylist() if row["config_id"] is not None]
    group = [row for row in trials if all(row[name] == chosen[name] for name in ("task", "method", "backbone"))]
    completed = TrialStatus.COMPLETED.value
    (record,) = store.records([chosen["trial_id"]])
    return Standing(
        # In results a task or backbone may be told apart from another one of its name; a card is of this one alone.
        trial={**chosen, "task": record.task, "backbone": record.backbone},
        replicates=[r for r in group if r["config_id"] == chosen["config_id"] and r["status"] == completed],
        num_configurations=len({row["config_id"] for row in group}),
        num_failed=sum(row["status"] == TrialStatus.FAILED.value for row in group),
        task=json.loads((folder / CONFIG).read_text(encoding="utf-8"))["task"],
    )


def _check_registration(name: str | None, tracking_uri: str | None) -> None:
    """Raises `FaultsError` where a model cannot be registered so, before anything is trained for it."""
    if name is None:
        return
    from orchestrator.tracking import given_tracking_uri

    given_tracking_uri(tracking_uri)
    try:
        registered(name)
    except ValueError as error:
        raise FaultsError("export", [f"--register-model: {error}"]) from None


def _register(store: Store, chosen: Mapping[str, Any], folder: Path, name: str, tracking_uri: str | None) -> str:
    """Make what was written a version of a registered model; returns its address."""
    from orchestrator.run.winner_models import winner_model
    from orchestrator.tracking import register_model

    (record,) = store.records([chosen["trial_id"]])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    model = dataclasses.replace(winner_model(store, record, travels=True), files=lambda: files)
    return register_model(record.sweep, model, name, tracking_uri=tracking_uri)


def convert_folder(folder: str, *, to: str, out: str, as_json: bool) -> int:
    """Write a saved adapter in the format of another library."""
    written = convert(folder, to, given_path("convert", "--out", out))
    print(json.dumps({"folder": str(written), "format": to}) if as_json else written)
    return 0


def _fresh_folder(parent: Path) -> Path:
    """A new hidden folder. Raises `FaultsError` where none can be made."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent, prefix=".adaptune-export-"))
    except OSError as error:
        raise FaultsError("export", [f"--out: must be a folder that can be written, but {error}"]) from None


def _check_writable(folder: Path) -> None:
    """Raises `FaultsError` where a folder cannot be made and written, before a model is trained for it."""
    made: list[Path] = []
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FaultsError("export", [f"--out: must be a folder that can be written, but {error}"]) from None
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def take_kept(store: Store, chosen: Mapping[str, Any], folder: Path, screen: Console) -> bool:
    """Write what the sweep kept of a recorded trial, and say so; False where it kept nothing of it."""
    files = store.weights(chosen["trial_id"], chosen["started_at"])
    if files is None:
        return False
    try:
        write_files(folder, files)
    except OSError as error:
        raise FaultsError("export", [f"--out: must be a folder that can be written, but {error}"]) from error
    words = f"{chosen['method']} on {chosen['task']}, {replicate(chosen['seed'], chosen['fold'])}"
    scores = _written_scores(chosen["validation_score"], chosen["test_score"])
    screen.print(f"kept by the sweep: {words}\n{scores}, as recorded")
    return True


def train_again(store: Store, chosen: Mapping[str, Any], folder: Path, screen: Console) -> TrialOutcome | None:
    """Train a recorded trial once more, save it, and say how its scores compare; None where it failed this time."""
    # Here: of the commands that read a store, only these train.
    from trainables.engine.engine import Engine

    screen.print(f"training {chosen['method']} on {chosen['task']} again, {replicate(chosen['seed'], chosen['fold'])}")
    threads = (chosen["provenance"] or {}).get("num_threads")
    config = recorded_config(store, chosen["trial_id"])
    outcome = Engine(num_threads=int(threads) if threads else None).run(config, save_to=folder)
    if outcome.error is not None:
        screen.print(outcome.error, markup=False)
        return None
    recorded = f"recorded {_written_scores(chosen['validation_score'], chosen['test_score'])}"
    verdict = (
        "as recorded"
        if _is_as_recorded(outcome, chosen)
        else f"{recorded}: the device, package versions or the trials packed with it differ"
    )
    screen.print(f"{_written_scores(outcome.validation_score, outcome.test_score)}, {verdict}")
    return outcome


def recorded_config(store: Store, trial_id: str) -> TrialConfig:
    """What a planned trial was trained with. Raises `FaultsError` where the store's plan does not say."""
    plan = store.plan_table()
    texts = plan.filter(pc.equal(plan["trial_id"], trial_id))["config"].to_pylist()
    try:
        return TrialConfig.from_dict(json.loads(texts[0]))
    except (IndexError, ValueError, TypeError, RecursionError) as error:
        fault = f"the plan must hold the configuration of trial {trial_id}, but does not"
        raise FaultsError(f"store {store.uri}", [fault]) from error


def choose(
    command: str,
    results: Results,
    *,
    task: str | None,
    trial: str | None,
    method: str | None = None,
    backbone: str | None = None,
) -> dict[str, Any]:
    """The record a command is about: the named trial, or the recommended configuration's replicate best on validation.

    With a method, or a backbone by its reference or as tables call it, what is recommended is the best of it. Raises
    `FaultsError` in the command's name.
    """
    trials = results.trials()
    completed = {row["trial_id"]: row for row in trials.to_pylist() if row["status"] == TrialStatus.COMPLETED.value}
    if trial is not None:
        if trial not in completed:
            raise FaultsError(command, [f"--trial: {unknown_name('completed trial', trial, completed)}"])
        row = completed[trial]
        asked = {"task": task, "method": method, "backbone": backbone and _reference(results, backbone)}
        faults = [
            f"--trial: {trial} has the {name} {row[name]}, but --{name} asks for {value}; name the trial alone"
            for name, value in asked.items()
            if value is not None and value != row[name]
        ]
        if faults:
            raise FaultsError(command, faults)
        return row
    if backbone is not None:
        known = sorted(set(trials["backbone"].to_pylist()))
        if (backbone := _reference(results, backbone)) not in known:
            raise FaultsError(command, [f"--backbone: {unknown_name('backbone of this sweep', backbone, known)}"])
        trials = trials.filter(pc.equal(trials["backbone"], backbone))
        results = Results(trials, results.epochs())
    if method is not None:
        results = Results(trials.filter(pc.equal(trials["method"], method)), results.epochs())
    recommended = {row["task"]: row for row in results.recommend().to_pylist()}
    kind = "completed trial" + (f" of method {method}" if method else "") + (f" of {backbone}" if backbone else "")
    if not recommended:
        raise FaultsError(command, [f"there must be a {kind} to {command}, but the store holds none"])
    if task is None and len(recommended) > 1:
        raise FaultsError(command, [f"--task: is required where a sweep has several: {', '.join(recommended)}"])
    if task is not None and task not in recommended:
        raise FaultsError(command, [f"--task: {unknown_name(f'task with a {kind}', task, recommended)}"])
    row = recommended[task] if task is not None else next(iter(recommended.values()))
    of_it = [r for r in completed.values() if r["config_id"] == row["config_id"]]
    replicates = {replicate_of(r["seed"], r["fold"]): r for r in of_it}
    return replicates[best_replicate({each: r["validation_score"] for each, r in replicates.items()}, row["metric"])]


def _reference(results: Results, backbone: str) -> str:
    """What the records call a backbone, which may be given as tables call it."""
    return {name: reference for reference, name in results.backbone_names().items()}.get(backbone, backbone)


def _is_as_recorded(outcome: TrialOutcome, chosen: Mapping[str, Any]) -> bool:
    return outcome.validation_score == chosen["validation_score"] and outcome.test_score == chosen["test_score"]


def _written_scores(validation: float | None, test: float | None) -> str:
    return f"validation {validation:.4f}" + ("" if test is None else f", test {test:.4f}")
