"""`adaptune export`: the model card it writes, and how a folder is pushed, to a hub that runs on this machine."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from orchestrator.cli import export, main
from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.record import make_record
from orchestrator.store import Store
from tests.fixtures import write_task_folder
from trainables.engine.engine import Engine
from trainables.inference.saved_adapter import load
from trainables.inference.saved_names import CARD, CONFIG, WEIGHTS

TOKEN = "hf_" + "x" * 20


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished sweep of two settings with three seeds, which has kept nothing."""
    root = tmp_path_factory.mktemp("trained")
    plan = plan_sweep(
        {
            "name": "small",
            "backbone": str(tiny_bert),
            "tasks": [str(write_task_folder(root))],
            "seeds": [0, 1, 2],
            "space": {"num_epochs": 1, "batch_size": 32, "max_length": 16, "precision": "fp32"},
            "methods": [{"lora": {"rank": {"grid": [1, 2]}, "learning_rate": 1e-2, "pooling": "pooler"}}],
        }
    )
    store = Store(root / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTUNE_CACHE", str(root / "cache"))
        engine = Engine(device="cpu", num_threads=1)
        outcomes = engine.run_all([trial.config for trial in plan.trials])
    store.append([make_record("small", trial, outcome) for trial, outcome in zip(plan.trials, outcomes, strict=True)])
    return root / "store"


@pytest.fixture
def store(trained: Path, tmp_path: Path, cache_dir: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "store"))


class Hub(ThreadingHTTPServer):
    """What of the hub a push speaks with: repositories, and the files of the commits they were sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.refuses_commits = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Hub

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _note(self) -> bytes:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        self._note()
        name = self.path.removeprefix("/api/models/").partition("?")[0]
        if name in self.server.private:
            self._answer(200, {"id": name, "private": self.server.private[name], "siblings": [], "tags": []})
        else:
            self._answer(404, {"error": "Repository not found"})

    def do_POST(self) -> None:
        body = self._note()
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in self.server.private:
                return self._answer(409, {"error": "exists", "url": f"{self.server.url}/{name}"})
            self.server.private[name] = asked.get("private", asked.get("visibility") == "private")
            return self._answer(200, {"url": f"{self.server.url}/{name}", "id": name})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if "/commit/" in self.path:
            if self.server.refuses_commits:
                return self._answer(403, {"error": f"no right to write with {TOKEN}"})
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            oid = "0" * 40
            url = f"{self.server.url}/{self.path.split('/commit/')[0].removeprefix('/api/models/')}/commit/{oid}"
            return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})
        return self._answer(200, {"errors": [], "warnings": []})  # of the front matter

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and the token it is to be asked with."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_export_that_is_interrupted_leaves_nothing_beside_its_target(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_standing", interrupt)
    (out := tmp_path / "out").mkdir()
    assert main(["export", str(store), "--out", str(out / "adapter"), "--format", "peft"]) == 130
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("to", [None, "peft"])
def test_an_export_into_a_folder_of_other_things_trains_nothing_and_leaves_them(
    store: Path,
    tmp_path: Path,
    to: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "train_again", lambda *_: pytest.fail("something is trained"))
    (work := tmp_path / "work" / "references").mkdir(parents=True)
    (work / "houlsby.pdf").write_text("a paper")
    (tmp_path / "work" / CARD).write_text("mine")
    monkeypatch.chdir(tmp_path / "work")
    assert main(["export", str(store), "--out", ".", *([] if to is None else ["--format", to])]) == 2
    assert "out: must be a new or empty folder" in capsys.readouterr().err
    assert (work / "houlsby.pdf").read_text() == "a paper"
    assert Path(CARD).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "work"]


def test_a_folder_beside_the_target_is_left_whatever_it_is_called(store: Path, tmp_path: Path) -> None:
    beside = [tmp_path / "deep" / name for name in (".adapter.saved", ".adapter.tmp")]
    for folder in beside:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    assert main(["export", str(store), "--out", str(tmp_path / "deep" / "adapter"), "--format", "peft"]) == 0
    assert [(folder / "notes.txt").read_text() for folder in beside] == ["mine", "mine"]
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [".adapter.saved", ".adapter.tmp", "adapter"]


@pytest.mark.parametrize("to", [None, "peft"])
def test_the_card_has_spread_data_provenance_and_front_matter_of_the_hub(
    store: Path, tmp_path: Path, to: str | None
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(store), "--out", str(out), *([] if to is None else ["--format", to])]) == 0
    card = ModelCard.load(out / CARD)
    trials = Store(store).trials().to_pylist()
    assert card.data.library_name == (to or "adaptune")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None  # a folder of this machine
    results = {result.dataset_split: result for result in card.data.eval_results}
    assert set(results) == {"validation", "test"}
    assert results["test"].metric_type == "accuracy"
    assert round(results["test"].metric_value, 6) in {round(row["test_score"], 6) for row in trials}
    for part in (
        "95 % interval, other seeds and rows",
        "(n=3)",
        "2 configurations of lora were tried",
        "- Rows: 64 train, 32 validation, 32 test",
        "- Fingerprint of the rows: sha256 ",
        "- Versions: adaptune ",
        "- Trial ",
        "## Use",
    ):
        assert part in card.text, part
    assert str(tmp_path.parent) not in card.content  # where things lie here is nobody's business
    assert card.content.count("```") == 2
    assert load(out).predict(["good w1"])


def test_the_card_counts_what_another_sweep_trained_and_has_the_names_that_were_recorded(
    store: Path, tmp_path: Path
) -> None:
    opened = Store(store)
    records = opened.records()
    chosen = records[0]
    rest = [record for record in records if record.seed]
    opened.retire([record.trial_id for record in rest], even_finished=True)
    others = [dataclasses.replace(record, sweep="another") for record in rest]
    fingerprints = {**chosen.provenance, "data_fingerprint": "f" * 64, "backbone_fingerprint": "f" * 64}
    apart = dataclasses.replace(chosen, trial_id="other", config_id="other", provenance=fingerprints)
    opened.append([*others, apart])
    out = tmp_path / "out"
    assert main(["export", str(store), "--trial", chosen.trial_id, "--out", str(out)]) == 0
    card = ModelCard.load(out / CARD)
    assert "(n=3)" in card.text
    assert f"Task: {chosen.task}, " in card.text
    assert chosen.backbone not in card.content


def test_a_push_makes_a_private_repository_and_sends_every_file(
    store: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(store), "--push", "me/opinions", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    folder = Path(answer["folder"])
    assert hub.private == {"me/opinions": True}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert answer["pushed"].startswith(hub.url)
    assert hub.files.keys() == {CARD, CONFIG, WEIGHTS}
    assert all(hub.files[name] == (folder / name).read_bytes() for name in (CARD, WEIGHTS))
    # Where the task and the backbone lie on this machine is nobody else's business.
    sent, here = (json.loads(content) for content in (hub.files[CONFIG], (folder / CONFIG).read_bytes()))
    assert sent["backbone"] == Path(here["backbone"]).name
    assert sent["trial_config"]["task"] == Path(here["trial_config"]["task"]).name
    assert sent.keys() == here.keys()
    assert b'"/' not in hub.files[CONFIG]
    # A second push is another commit of the same repository.
    assert main(["export", str(store), "--push", "me/opinions"]) == 0


@pytest.mark.parametrize(("public", "status"), [([], 2), (["--public"], 0)])
def test_a_public_repository_is_pushed_to_where_that_is_said(
    store: Path, hub: Hub, capsys: pytest.CaptureFixture[str], public: list[str], status: int
) -> None:
    hub.private["me/opinions"] = False
    assert main(["export", str(store), "--push", "me/opinions", *public]) == status
    assert bool(hub.files) == (status == 0)
    if status:
        assert "is there already and public" in capsys.readouterr().err


def test_without_a_token_or_a_name_nothing_is_trained_or_asked(
    store: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["export", str(store), "--push", "not a name"]) == 2
    said = capsys.readouterr().err
    assert "export: 2 faults" in said
    assert "the variable HF_TOKEN must hold a token that may write, but is not set" in said
    assert "must be the name of a repository" in said
    assert main(["export", str(store), "--public"]) == 2
    assert hub.asked == []
    assert not (store / "adapters").exists()


def test_what_the_hub_refuses_is_one_error_without_the_token(
    store: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses_commits = True
    assert main(["export", str(store), "--push", "me/opinions"]) == 2
    said = capsys.readouterr().err
    assert "is written, but could not be sent to me/opinions" in said
    assert TOKEN not in said


def test_a_hub_that_is_not_there_is_one_error(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["export", str(store), "--push", "me/opinions"]) == 2
    assert "me/opinions cannot be pushed to" in capsys.readouterr().err
