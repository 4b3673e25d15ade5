"""Tasks one after another on a small encoder: what stays, what is forgotten, and what is not done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import torch
import transformers
from safetensors.torch import load_file

import adaptune
from orchestrator.analysis.text.forgetting import markdown
from orchestrator.cli import main
from orchestrator.planning.sequence import order_of, plan_sequence
from orchestrator.spec.sequence import parse_sequence
from orchestrator.store import StoreLockedError
from orchestrator.store.files import open_folder
from orchestrator.store.lock import hold
from tests.fixtures import write_task_folder
from trainables.engine import pack_run
from trainables.engine.engine import Engine
from trainables.faults import FaultsError
from trainables.inference.formats import convert
from trainables.inference.saved_adapter import load, save
from trainables.tasks import load as load_task

ADAPTER = {"adapter": {"adapter_size": 4, "learning_rate": 1e-2}}
FULL = {"full_finetuning": {"learning_rate": 1e-2, "pooling": "pooler"}}


@pytest.fixture(scope="module")
def values(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sequence of three small tasks, the second a regression and the third without test rows."""
    root = tmp_path_factory.mktemp("tasks")
    tasks = [
        write_task_folder(root, "first"),
        write_task_folder(root, "second", kind="regression", rows=48),
        write_task_folder(root, "third", rows=40, splits="train validation"),
    ]
    return {
        "name": "small",
        "backbone": str(tiny_bert),
        "tasks": [str(task) for task in tasks],
        "seeds": [0, 1],
        "space": {"num_epochs": 1, "batch_size": 16, "max_length": 16, "precision": "fp32"},
        "methods": [ADAPTER, FULL],
    }


@pytest.fixture(scope="module")
def done(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that sequence, run to its end."""
    root = tmp_path_factory.mktemp("sequence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTUNE_CACHE", str(root / "cache"))
        results = adaptune.run_sequence(values, root / "store", device="cpu")
    assert results.failed() == []
    return root / "store"


@pytest.fixture(autouse=True)
def quick(cache_dir: Path) -> None:
    """Tokenised rows are kept in the test's own folder."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods and tasks of the trainings that a test starts, as they start."""
    started: list[str] = []
    work = Engine.work

    def noting(engine: Engine, inbox: Any) -> None:
        started.extend(f"{job.config.method} {Path(job.config.task).name} {job.config.seed}" for job in inbox._jobs)
        work(engine, inbox)

    monkeypatch.setattr(Engine, "work", noting)
    return started


def scores(store: Path, method: str, seed: int) -> dict[tuple[int, int], Mapping[str, Any]]:
    rows = adaptune.load_sequence(store).cells().to_pylist()
    return {(row["after"], row["place"]): row for row in rows if (row["method"], row["seed"]) == (method, seed)}


def test_every_task_so_far_is_evaluated_after_each_and_adapters_stay_to_the_last_bit(done: Path) -> None:
    for seed in (0, 1):
        for method in ("adapter", "full_finetuning"):
            assert sorted(scores(done, method, seed)) == [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)]
        cells = scores(done, "adapter", seed)
        for (after, place), cell in cells.items():
            then = cells[place, place]
            assert (cell["score"], cell["outputs_sha256"]) == (then["score"], then["outputs_sha256"])
            assert after == place or cell["evaluated_at"] > then["evaluated_at"]  # evaluated again, not copied
    assert {row["split"] for row in scores(done, "adapter", 0).values()} == {"test", "validation"}
    matrix = adaptune.load_sequence(done).matrix().to_pylist()
    later = [row for row in matrix if row["after"] > row["place"]]
    assert [row["is_unchanged"] for row in later] == [row["method"] == "adapter" for row in later]
    measured = {(row["method"], row["measure"]): row for row in adaptune.load_sequence(done).measures().to_pylist()}
    assert measured["adapter", "forgetting"]["mean"] == measured["adapter", "backward_transfer"]["sem"] == 0
    assert measured["full_finetuning", "average_score"]["num_seeds"] == 2


def test_a_sequence_in_the_home_folder_is_found_there(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(done.parent))
    assert adaptune.load_sequence(f"~/{done.name}").cells().equals(adaptune.load_sequence(done).cells())


def test_right_after_training_a_task_scores_what_its_training_recorded(done: Path) -> None:
    trainings = adaptune.load_sequence(done).trainings().to_pylist()
    assert len(trainings) == 12
    for row in trainings:
        cell = scores(done, row["method"], row["seed"])[row["place"], row["place"]]
        recorded = row["test_score"] if cell["split"] == "test" else row["validation_score"]
        assert cell["score"] == pytest.approx(recorded, abs=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_earlier_task_is_its_head_on_the_encoder_as_it_is_now(
    done: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    """Held against transformers' own model: the last checkpoint, with the classifier that the first task had."""
    cells = scores(done, "full_finetuning", 1)
    encoder = done / "trained" / cells[3, 3]["step_id"]
    head = load_file(done / "heads" / f"{cells[1, 1]['step_id']}.safetensors")
    convert(encoder, "transformers", tmp_path / "last")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "last").eval()
    with torch.no_grad():
        model.classifier.weight.copy_(head["head.weight"].T)
        model.classifier.bias.copy_(head["head.bias"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "last")
    rows = load_task(values["tasks"][0]).splits["test"].to_pydict()
    inputs = tokenizer(rows["text_a"], truncation=True, max_length=16, padding=True, return_tensors="pt")
    with torch.no_grad():
        answers = model(**inputs).logits.argmax(dim=1).tolist()
    right = sum(answer == label for answer, label in zip(answers, rows["label"], strict=True))
    assert cells[3, 1]["score"] == pytest.approx(right / len(answers))
    assert not (done / "trained" / cells[2, 2]["step_id"]).exists()  # of a model that went on, the last encoder is kept


def test_trained_adapters_are_saved_adapters(done: Path) -> None:
    cell = scores(done, "adapter", 0)[1, 1]
    assert load(done / "trained" / cell["step_id"]).predict(["good w1"])


def test_tables_and_pictures_are_written(done: Path) -> None:
    assert (done / "forgetting.png").stat().st_size > 10_000
    assert b"<svg" in (done / "forgetting.svg").read_bytes()[:400]
    page = (done / "forgetting.md").read_text(encoding="utf-8")
    assert "| adapter | its own weights for each task |" in page
    assert "adapter 3 of 3, full_finetuning 0 of 3" in page
    assert len(pyarrow.csv.read_csv(done / "matrix.csv")) == 12


def test_a_finished_sequence_is_not_trained_again_and_a_wider_one_trains_what_is_new(
    done: Path, values: dict[str, Any], tmp_path: Path, trained: list[str]
) -> None:
    store = Path(shutil.copytree(done, tmp_path / "store"))
    before = adaptune.load_sequence(store).cells()
    assert adaptune.run_sequence(values, store, device="cpu").cells() == before
    assert trained == []
    longer = [*values["tasks"], str(write_task_folder(tmp_path, "fourth", rows=32))]
    results = adaptune.run_sequence({**values, "tasks": longer, "seeds": [0]}, store, device="cpu")
    assert trained == ["adapter fourth 0", "full_finetuning fourth 0"]
    assert len(results.cells()) == 2 * 10


def test_an_interrupted_sequence_goes_on_and_comes_to_the_same(
    done: Path, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    evaluate, calls = Engine.evaluate, []

    def stop_at_the_fifth(engine: Engine, *arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return evaluate(engine, *arguments, **named)

    one_seed = {**values, "seeds": [1]}
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "evaluate", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            adaptune.run_sequence(one_seed, tmp_path / "store", device="cpu")
    assert len(adaptune.load_sequence(tmp_path / "store").trainings()) == 3  # the second task's full_finetuning is none
    adaptune.run_sequence(one_seed, tmp_path / "store", device="cpu")
    assert len(trained) == len(set(trained)) == 6
    for method in ("adapter", "full_finetuning"):
        cells = scores(tmp_path / "store", method, 1)
        assert cells.keys() == scores(done, method, 1).keys()
        for key, cell in cells.items():
            # Alone and in a pack, sums have another order.
            assert cell["score"] == pytest.approx(scores(done, method, 1)[key]["score"], abs=0.05)


def test_a_training_that_fails_is_told_and_the_others_go_on(
    values: dict[str, Any], tmp_path: Path, trained: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    broken = {**values, "seeds": [0], "methods": [ADAPTER, {"full_finetuning": {"learning_rate": 1e30}}]}
    told: list[str] = []
    results = adaptune.run_sequence(broken, tmp_path / "store", device="cpu", tell=told.append)
    assert [sentence.partition(":")[0] for sentence in results.failed()] == [
        f"full_finetuning on {name}, seed 0" for name in ("first", "second", "third")
    ]
    assert "from which it goes on, has failed" in results.failed()[1]
    assert {row["method"] for row in results.measures().to_pylist()} == {"adapter"}
    (reason,) = [line for line in told if line.startswith("full_finetuning, seed 0, task 1 (first)")]
    assert "(first): failed: " in reason
    assert "TrainingDivergedError: the training loss became" in reason
    assert not [record for record in caplog.records if record.exc_info]  # no traceback on the terminal
    del trained[:]
    adaptune.run_sequence(broken, tmp_path / "store", device="cpu")
    assert trained == ["full_finetuning first 0"]


def test_a_task_that_failed_once_is_evaluated_in_all_rows_when_it_has_been_trained(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    adapters = {**values, "seeds": [0], "methods": [ADAPTER]}
    with monkeypatch.context() as patch:
        patch.setattr(pack_run, "save", save_unless_first)
        first = adaptune.run_sequence(adapters, tmp_path / "store", device="cpu")
    assert [sentence.partition(":")[0] for sentence in first.failed()] == ["adapter on first, seed 0"]
    assert len(first.cells()) == 3
    del trained[:]
    again = adaptune.run_sequence(adapters, tmp_path / "store", device="cpu")
    assert trained == ["adapter first 0"]
    assert len(again.cells()) == 6
    assert again.failed() == []


def save_unless_first(folder: Path, model: Any, config: Any, *rest: Any, **named: Any) -> None:
    if config.task.endswith("first"):
        raise OSError("no room")
    save(folder, model, config, *rest, **named)


def test_a_folder_that_a_run_holds_is_taken_over_where_that_is_asked_for(done: Path, values: dict[str, Any]) -> None:
    with hold(open_folder(done), str(done)):
        with pytest.raises(StoreLockedError, match="say so with --take-over"):
            adaptune.run_sequence(values, done, device="cpu")
        assert adaptune.run_sequence(values, done, device="cpu", take_over=True).failed() == []


def test_a_row_that_was_torn_is_written_anew(done: Path, values: dict[str, Any], tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(done, store)
    torn = next(row for row in sorted((store / "rows").iterdir()) if '"adapter"' in row.read_text(encoding="utf-8"))
    whole = json.loads(torn.read_text(encoding="utf-8"))
    torn.write_bytes(b"")
    with pytest.raises(FaultsError, match="must be the folder of a sequence that was run"):
        adaptune.load_sequence(store)
    assert adaptune.run_sequence(values, store, device="cpu").failed() == []
    told = [(cell["task"], cell["outputs_sha256"]) for cell in json.loads(torn.read_text(encoding="utf-8"))["cells"]]
    assert told == [(cell["task"], cell["outputs_sha256"]) for cell in whole["cells"]]


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[]", "{}", '{"cells": 3, "training": {}}', '{"cells": [3], "training": []}']
)
def test_what_is_no_row_is_said_and_no_traceback(done: Path, tmp_path: Path, content: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(done, store)
    next((store / "rows").iterdir()).write_text(content, encoding="utf-8")
    with pytest.raises(FaultsError, match="must be the folder of a sequence that was run, but"):
        adaptune.load_sequence(store)


def test_an_error_is_kept_without_secrets(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise OSError("signed with hunter2hunter2")

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setattr(pack_run, "save", refuse)
    one = {**values, "seeds": [0], "methods": [ADAPTER]}
    assert adaptune.run_sequence(one, tmp_path / "store", device="cpu").failed()
    kept = [file for file in (tmp_path / "store").rglob("*") if file.is_file() and b"signed with" in file.read_bytes()]
    assert kept
    assert not [file for file in kept if b"hunter2" in file.read_bytes()]


def test_every_fault_is_told_at_once(values: dict[str, Any], tmp_path: Path) -> None:
    faulty = {
        **values,
        "tasks": [values["tasks"][0], "nowhere/at/all"],
        "seeds": [0, 0],
        "space": {"learning_rate": {"grid": [1e-3, 1e-4]}, "num_epochs": 0},
        "methods": [ADAPTER, "adapter", "fulfinetuning"],
        "sequential": ["layernorm"],
        "search": {"algorithm": "grid"},
        "max_train_rows": 0,
        "shuffle": "yes",
    }
    with pytest.raises(FaultsError) as error:
        adaptune.run_sequence(faulty, tmp_path / "store")
    text = str(error.value)
    for part in (
        "no such folder",
        "seeds: every entry must stand once",
        "space.learning_rate: must be one value, since a sequence searches nothing",
        "space.num_epochs: must be a whole number >= 1",
        "methods: every method must stand once, but adapter stands 2 times",
        "unknown method 'fulfinetuning'; did you mean 'full_finetuning'?",
        "sequential: unknown method of this sequence 'layernorm'",
        "search: unknown key 'search'",
        "max_train_rows: must be a whole number >= 1, but got 0",
        "shuffle: must be true or false, but got 'yes'",
    ):
        assert part in text, part
    assert not (tmp_path / "store").exists()


def test_a_model_that_goes_on_has_no_statistics_of_its_batches(values: dict[str, Any]) -> None:
    normalised = {"no_bert": {"conv_batch_norm": True}}
    with pytest.raises(FaultsError) as error:
        plan_sequence({**values, "methods": [normalised], "sequential": ["no_bert"]})
    (fault,) = error.value.faults
    assert fault.startswith("sequential: no_bert cannot go on from task to task with statistics of its batches")
    assert plan_sequence({**values, "methods": ["no_bert"], "sequential": ["no_bert"]}).steps
    assert plan_sequence({**values, "methods": [normalised], "sequential": []}).steps


@pytest.mark.parametrize("given", [None, [], "adapter", 3])
def test_what_is_no_mapping_is_refused(given: Any) -> None:
    with pytest.raises(FaultsError, match="must be a mapping with the keys"):
        plan_sequence(given)


def test_fewer_than_two_tasks_are_no_sequence(values: dict[str, Any]) -> None:
    with pytest.raises(FaultsError, match="tasks: must be at least 2"):
        plan_sequence({**values, "tasks": values["tasks"][:1]})
    with pytest.raises(FaultsError) as error:  # where there are none, nothing is said of how many there are
        plan_sequence({name: value for name, value in values.items() if name != "tasks"})
    assert error.value.faults == ("tasks: is required",)


def test_another_folder_s_content_is_not_written_over(done: Path, values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FaultsError, match="must be a new or empty folder, or that of a sequence"):
        adaptune.run_sequence(values, tmp_path)
    with pytest.raises(FaultsError, match="is that of small"):
        adaptune.run_sequence({**values, "name": "other"}, done)
    with pytest.raises(FaultsError, match="must be the folder of a sequence that was run"):
        adaptune.load_sequence(tmp_path)


def test_seeds_have_orders_of_their_own_where_they_are_shuffled(values: dict[str, Any]) -> None:
    spec, _ = parse_sequence({**values, "shuffle": True})
    orders = {seed: order_of(spec, seed) for seed in range(8)}
    assert len(set(orders.values())) > 2
    assert all(sorted(order) == sorted(values["tasks"]) for order in orders.values())
    assert orders == {seed: order_of(spec, seed) for seed in range(8)}
    plan = plan_sequence({**values, "shuffle": True})
    for step in plan.steps:
        assert step.config.task == orders[step.config.seed][step.place]
        assert step.is_sequential == (step.method == "full_finetuning")


def test_what_is_trained_decides_the_id(values: dict[str, Any]) -> None:
    def ids(**changes: Any) -> list[list[str]]:
        steps = plan_sequence({**values, **changes}).steps
        return [
            [step.step_id for step in steps if step.method == method and step.config.seed == 0]
            for method in ("adapter", "full_finetuning")
        ]

    adapter, full = ids()
    first, second, third = values["tasks"]
    turned_adapter, turned_full = ids(tasks=[first, third, second])
    assert sorted(turned_adapter) == sorted(adapter)  # an adapter is the same whatever comes before it
    assert turned_full[0] == full[0]
    assert not {*turned_full[1:]} & {*full}
    cut_adapter, _ = ids(max_train_rows=20)
    assert not {*cut_adapter} & {*adapter}


def test_the_command_runs_shows_and_answers_in_json(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "sequence", *values["tasks"][:2], "--backbone", values["backbone"], "--epochs", "1", "--seeds", "1",
        "--learning-rate", "adapter=1e-2,lora=1e-3", "--methods", "adapter,lora", "--sequential", "lora",
        "--set", "max_length=16", "--set", "methods.adapter.adapter_size=4", "--max-train-rows", "32", "--device",
        "cpu",
    ]  # fmt: skip
    assert main(options) == 0
    said = capsys.readouterr().out
    assert "lora, seed 0, task 2 (second): now first" in said
    assert "sweeps/sequence/forgetting.png" in said
    assert main([*options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {row["method"]: row["is_sequential"] for row in answer["matrix"]} == {"adapter": False, "lora": True}
    assert answer["failed"] == []
    spec = json.loads((tmp_path / "sweeps/sequence/sequence.json").read_text(encoding="utf-8"))["spec"]
    assert spec["max_train_rows"] == 32
    assert spec["seeds"] == [0]
    assert main(["sequence", values["tasks"][0], "x.yaml"]) == 2
    assert main(["sequence", *values["tasks"], "--seeds", "many"]) == 2
    assert "must be a number, or a list such as 0,7, but got 'many'" in capsys.readouterr().err


def test_orders_are_of_one_picture_where_seeds_have_their_own(done: Path) -> None:
    cells = adaptune.load_sequence(done).cells().to_pylist()
    for cell in cells:
        if cell["seed"] == 1:  # as if it had met the tasks in another order
            cell["task"], cell["after_task"] = f"other {cell['place']}", f"other {cell['after']}"
    trainings = adaptune.load_sequence(done).trainings()
    results = adaptune.SequenceResults(pyarrow.Table.from_pylist(cells), trainings)
    assert {row["task"] for row in results.matrix().to_pylist()} == {None}
    assert "| after | task 1 | task 2 | task 3 |" in markdown(results)
