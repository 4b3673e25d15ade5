"""Tasks trained one after another in this process, and every task so far evaluated after each: the forgetting matrix.

One engine trains and evaluates everything over one backbone, so no cluster is needed: each task waits for the one
before, and what could run beside it, its replicates, trains in one pack. A folder keeps what was trained and what each
evaluation gave, and what is there already is not done again.

    STORE/sequence.json     what was asked, and which rows belong to it
    STORE/trained/<id>/     what a training has left: a saved adapter, and outcome.json
    STORE/heads/<id>.safetensors    the head of an earlier task of a model that went on
    STORE/rows/<id>.json    a row of the matrix: what was trained, and what all tasks so far scored
    STORE/cells.parquet, cells.csv, trainings.parquet    all of them as tables
    STORE/matrix.csv, measures.csv, forgetting.md, forgetting.png, forgetting.svg    what they say
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orchestrator.analysis.files import csv_bytes, parquet_bytes, replace_file
from orchestrator.analysis.sequences import CELLS, TRAININGS, SequenceResults
from orchestrator.planning.sequence import PlannedStep, SequencePlan, plan_sequence
from orchestrator.secrets import masked
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.sequence import SequenceSpec
from orchestrator.spec.sweep_file import read_sweep
from orchestrator.store.files import open_folder
from orchestrator.store.lock import hold
from trainables.config import TrialConfig
from trainables.data.paths import given_path, read_json
from trainables.faults import FaultsError
from trainables.outcome import OutcomeStatus, TrialOutcome, now

if TYPE_CHECKING:
    from trainables.engine.engine import Engine

Tell = Callable[[str], None]  # takes a line about what has just been done

_SPEC, _OUTCOME = "sequence.json", "outcome.json"
_UNKEPT = ("epochs", "predictions", "weights")  # of an outcome: what its JSON leaves out


def run_sequence(
    sequence: Mapping[str, Any] | str | Path,
    store: str | Path | None = None,
    *,
    device: str | None = None,
    num_threads: int | None = None,
    tell: Tell = lambda line: None,
    take_over: bool = False,
) -> SequenceResults:
    """Train tasks one after another and evaluate every task so far after each; or go on where this was interrupted.

    Args:
        sequence: a file as a sweep's, or its values: name, backbone, tasks, seeds, space, methods, and of its own
            sequential, max_train_rows, max_evaluation_rows and shuffle.
        store: the local folder for what is trained and measured; `sweeps/<name>` by default.
        device: "cpu", "cuda", "cuda:1"; None takes the first GPU, else the CPU.
        num_threads: CPU threads; None leaves torch's choice.
        tell: called with a line after each training and each row of the matrix.
        take_over: whether to take the folder over from a run at work there without waiting for it to fall silent.

    A training that fails is in the results with its error; a model that goes on from task to task ends there, and the
    next run tries it again. Raises `FaultsError` with everything that is wrong before anything is trained.
    """
    values = read_sweep(str(sequence)) if isinstance(sequence, str | Path) else sequence
    plan = plan_sequence(with_absolute_paths(values))
    folder = _folder(Path("sweeps") / plan.spec.name if store is None else store)
    with hold(open_folder(folder), str(folder), take_over=take_over):
        from trainables.engine.engine import Engine

        _declare(folder, plan)
        engine = Engine(device=device, num_threads=num_threads, load_task=_reader(plan.spec))
        for note in plan.notes:
            tell(note)
        run = _Run(folder, plan, engine, tell)
        try:
            run.run()
        finally:
            results = load_sequence(folder)
            _write_answers(folder, results)
    return results


def load_sequence(store: str | Path) -> SequenceResults:
    """What a sequence has come to, finished or not. Raises `FaultsError` where the folder holds none."""
    folder = given_path("sequence", "store", store)
    try:
        rows = [_read_row(folder, row_id) for row_id in read_json(folder / _SPEC)["rows"]]
        there = [row for row in rows if row is not None]
        return SequenceResults(
            pa.Table.from_pylist([cell for row in there for cell in row["cells"]], schema=CELLS),
            pa.Table.from_pylist([row["training"] for row in there], schema=TRAININGS),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # whatever anybody has written
        raise FaultsError(
            f"sequence {folder}", [f"must be the folder of a sequence that was run, but {_said_by(error)}"]
        ) from None


class _Run:
    """One run of a plan: trains and evaluates what its folder lacks."""

    def __init__(self, folder: Path, plan: SequencePlan, engine: Engine, tell: Tell) -> None:
        self._folder = folder
        self._plan = plan
        self._engine = engine
        self._tell = tell

    def run(self) -> None:
        """Task after task: train it by every method and with every seed, then evaluate all tasks so far."""
        for place in range(len(self._plan.spec.sweep.tasks)):
            missing = [step for step in self._plan.steps if step.place == place and not self._has_row(step)]
            self._train(missing)
            for step in missing:
                self._evaluate(step)

    def _train(self, steps: Sequence[PlannedStep]) -> None:
        """Train those steps of one place whose weights are not there, the ones of a pack together."""
        from trainables.engine.inbox import Inbox
        from trainables.inference.saved_scores import start_of
        from trainables.training.running_trial import Job

        untrained = [step for step in steps if not self._has_weights(step)]
        # Weights that a row has been written for are let go; who goes on from them after all needs them again.
        if starts := [step.earlier[-1] for step in untrained if _goes_on(step) and self._has_row(step.earlier[-1])]:
            self._train(starts)
        inbox = Inbox()
        for step in untrained:
            if _goes_on(step) and not self._has_weights(step.earlier[-1]):
                continue
            start = functools.partial(start_of, self._trained(step.earlier[-1])) if _goes_on(step) else None
            done = functools.partial(self._keep_outcome, step)
            self._let_go(self._trained(step))  # what an earlier run left that failed or was killed
            inbox.put(Job(config=step.config, done=done, save_to=self._trained(step), start=start))
        self._engine.work(inbox)

    def _keep_outcome(self, step: PlannedStep, outcome: TrialOutcome) -> None:
        if outcome.status is OutcomeStatus.CANCELLED:
            return
        values = {
            field.name: getattr(outcome, field.name)
            for field in dataclasses.fields(outcome)
            if field.name not in _UNKEPT
        }
        values["error"] = outcome.error and masked(outcome.error)  # what raised it may have held a key in its hands
        self._trained(step).mkdir(parents=True, exist_ok=True)
        _write_json(self._trained(step) / _OUTCOME, {**values, "provenance": dict(outcome.provenance)})
        score = outcome.test_score if step.split == "test" else outcome.validation_score
        if outcome.status is OutcomeStatus.COMPLETED:  # of a failed one its row says why
            came = f", {outcome.metric} {score:.3f} on {step.split}" if score is not None else ""
            self._tell(f"{_words(step)}: trained in {outcome.duration_s:.0f} s{came}")

    def _evaluate(self, step: PlannedStep) -> None:
        """Write the row of the matrix that a step stands for: every task so far, evaluated now."""
        outcome = self._outcome(step)
        if outcome is None:
            outcome = {"status": "failed", "error": f"{step.earlier[-1].task}, from which it goes on, has failed"}
        cells: list[dict[str, Any]] = []
        if outcome["status"] == OutcomeStatus.COMPLETED:
            try:
                if step.is_sequential:
                    self._keep_head(step)
                cells = [self._cell(step, each) for each in (*step.earlier, step) if self._can_answer(each)]
            except Exception:
                outcome = {**outcome, "status": "failed", "error": masked(traceback.format_exc())}
        training = {**_who(self._plan, step), "place": step.place + 1, **_facts(step, outcome)}
        _write_json(self._row(step), {"row_id": step.row_id, "training": training, "cells": cells})
        if outcome["status"] != OutcomeStatus.COMPLETED:
            reason = str(outcome["error"] or "unknown error").strip().splitlines()[-1]
            self._tell(f"{_words(step)}: failed: {reason}")
            return
        if _goes_on(step):  # no later row needs the encoder of the task before
            self._let_go(self._trained(step.earlier[-1]))
        scores = ", ".join(f"{cell['task']} {cell['score']:.3f}" for cell in cells)
        self._tell(f"{_words(step)}: now {scores}")

    def _cell(self, step: PlannedStep, evaluated: PlannedStep) -> dict[str, Any]:
        """What a task scores after a step: by weights of its own, or by its head on the encoder as it is now."""
        head = self._head(evaluated) if step.is_sequential and evaluated is not step else None
        folder = self._trained(step if step.is_sequential else evaluated)
        found = self._engine.evaluate(evaluated.config, evaluated.split, folder, head=head)
        return {
            **_who(self._plan, step),
            "after": step.place + 1,
            "after_task": step.task,
            "place": evaluated.place + 1,
            "task": evaluated.task,
            "split": evaluated.split,
            "metric": found.metric,
            "score": found.scores[found.metric],
            "loss": found.scores["loss"],
            "num_rows": found.num_rows,
            "outputs_sha256": found.outputs_sha256,
            "step_id": evaluated.step_id,
            "evaluated_at": now(),
        }

    @staticmethod
    def _let_go(folder: Path) -> None:
        """Remove what a training has left, the file that says it is there before all others."""
        (folder / _OUTCOME).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _keep_head(self, step: PlannedStep) -> None:
        from trainables.inference.saved_scores import write_head

        if not self._head(step).exists():
            write_head(self._trained(step), self._head(step))

    def _outcome(self, step: PlannedStep) -> dict[str, Any] | None:
        """What came of a step's training, now or in an earlier run; None where nothing is kept of it."""
        try:
            found = read_json(self._trained(step) / _OUTCOME)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "status" in found else None

    def _has_weights(self, step: PlannedStep) -> bool:
        outcome = self._outcome(step)
        return outcome is not None and outcome["status"] == OutcomeStatus.COMPLETED

    def _can_answer(self, step: PlannedStep) -> bool:
        """Whether a task so far can be evaluated: its own weights are there, or its head on a model that went on."""
        return self._head(step).exists() if step.is_sequential else self._has_weights(step)

    def _has_row(self, step: PlannedStep) -> bool:
        """Whether a step was trained, and every task so far evaluated after it; what failed is tried again."""
        try:
            row = _read_row(self._folder, step.row_id)
            return row is not None and len(row["cells"]) == step.place + 1
        except (OSError, ValueError, KeyError, TypeError):  # torn, as by a power failure: it is written anew
            return False

    def _trained(self, step: PlannedStep) -> Path:
        return self._folder / "trained" / step.step_id

    def _head(self, step: PlannedStep) -> Path:
        return self._folder / "heads" / f"{step.step_id}.safetensors"

    def _row(self, step: PlannedStep) -> Path:
        return self._folder / "rows" / f"{step.row_id}.json"


def _goes_on(step: PlannedStep) -> bool:
    """Whether a step starts from what the step before it has trained."""
    return step.is_sequential and bool(step.earlier)


def _words(step: PlannedStep) -> str:
    return f"{step.method}, seed {step.config.seed}, task {step.place + 1} ({step.task})"


def _who(plan: SequencePlan, step: PlannedStep) -> dict[str, Any]:
    return {
        "sequence": plan.spec.name,
        "backbone": step.config.backbone,
        "method": step.method,
        "is_sequential": step.is_sequential,
        "seed": step.config.seed,
    }


def _facts(step: PlannedStep, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Of an outcome what the table of trainings has a column for, with what was trained and where."""
    names = [name for name in TRAININGS.names if name in outcome and name != "provenance"]
    return {
        "task": step.task,
        "step_id": step.step_id,
        **{name: outcome[name] for name in names},
        "config": json.dumps(step.config.to_dict()),
        "provenance": json.dumps(outcome.get("provenance") or {}),
    }


def _reader(spec: SequenceSpec) -> Callable[[TrialConfig], Any]:
    """How the engine reads a task: cut to the rows that were asked for, and kept."""
    from trainables import tasks
    from trainables.data.fewer_rows import fewer_rows

    @functools.cache
    def read(reference: str) -> tasks.Task:
        return fewer_rows(tasks.load(reference), train=spec.max_train_rows, evaluation=spec.max_evaluation_rows)

    return lambda config: read(config.task)


def _folder(store: str | Path) -> Path:
    if "://" in str(store):
        raise FaultsError("sequence", [f"store: must be a local folder, but got {store}"])
    try:
        folder = given_path("sequence", "store", store).absolute()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FaultsError("sequence", [f"store: must be a folder that can be written, but {error}"]) from None
    return folder


def _declare(folder: Path, plan: SequencePlan) -> None:
    """Say in the folder what was asked, and which rows are its own. Raises `FaultsError` where it is another's."""
    try:
        name = read_json(folder / _SPEC)["spec"]["name"]
    except FileNotFoundError:
        name = plan.spec.name
        if any(path.name != "lock.json" and not path.name.startswith(".") for path in folder.iterdir()):
            rule = "must be a new or empty folder, or that of a sequence"
            raise FaultsError("sequence", [f"store: {rule}, but {folder} holds other things"]) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FaultsError("sequence", [f"store: {_SPEC} must be as adaptune wrote it, but {_said_by(error)}"]) from None
    if name != plan.spec.name:
        rule = f"must be the folder of the sequence {plan.spec.name}, but {folder} is that of {name}"
        raise FaultsError("sequence", [f"store: {rule}"])
    _write_json(folder / _SPEC, {"spec": plan.spec.to_dict(), "rows": [step.row_id for step in plan.steps]})


def _read_row(folder: Path, row_id: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = read_json(folder / "rows" / f"{row_id}.json")
    except FileNotFoundError:
        return None
    return found


def _said_by(error: Exception) -> str:
    """What is wrong with a file of JSON, where it is not what is looked for in it."""
    if isinstance(error, LookupError | TypeError | AttributeError):
        return f"what is kept there lacks or misstates {error}"
    return str(error)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(values, indent=2) + "\n").encode())


def _write_answers(folder: Path, results: SequenceResults) -> None:
    """The matrix and its measures as tables and as a picture."""
    replace_file(folder / "cells.csv", csv_bytes(results.cells()))
    replace_file(folder / "cells.parquet", parquet_bytes(results.cells()))
    replace_file(folder / "trainings.parquet", parquet_bytes(results.trainings()))
    matrix, measures = results.matrix(), results.measures()
    if not len(matrix):
        return
    from orchestrator.analysis import figures
    from orchestrator.analysis.text.forgetting import markdown

    replace_file(folder / "matrix.csv", csv_bytes(matrix))
    replace_file(folder / "measures.csv", csv_bytes(measures))
    replace_file(folder / "forgetting.md", markdown(results).encode())
    figure = figures.forgetting_figure(matrix, measures)
    for kind in ("png", "svg"):
        replace_file(folder / f"forgetting.{kind}", figures.render(figure, kind))
