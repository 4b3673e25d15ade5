"""Commands that only look: plan, status, report, doctor."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from orchestrator.cli import doctor, main
from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.record import TrialStatus
from orchestrator.store import Store
from tests.factories import trial_record


@pytest.fixture
def half_finished(home: Path, values: dict[str, Any]) -> Store:
    """A store of which four of six trials have a record, one of them failed."""
    plan = plan_sweep(values)
    store = Store(home / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    records = [
        trial_record(
            trial,
            TrialStatus.FAILED if number == 3 else TrialStatus.COMPLETED,
            sweep=plan.spec.name,
            metric="accuracy",
            validation_score=None if number == 3 else 0.5 + number / 10,
            test_score=None if number == 3 else 0.4 + number / 10,
            error="ValueError: no" if number == 3 else None,
            engine="host/cpu",
            examples_per_second=200.0,
            pack_size=2.0,
        )
        for number, trial in enumerate(plan.trials[:4])
    ]
    store.append(records)
    return store


def test_plan_lists_every_trial_and_its_cost_and_writes_nothing(
    home: Path, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", write_sweep(), "--json", "--devices", "2", "--price", "3"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_trials"], answer["num_configurations"], answer["num_remaining"]) == (6, 3, 6)
    assert len({trial["trial_id"] for trial in answer["trials"]}) == 6
    assert {trial["adapter_size"] for trial in answer["trials"] if trial["method"] == "adapter"} == {1, 4}
    assert all(trial["trained_params"] > 0 for trial in answer["trials"])
    assert answer["estimate"]["seconds"] > 0
    assert answer["estimate"]["cost"] == pytest.approx(answer["estimate"]["seconds"] * 2 * 3 / 3600)
    assert not (home / "sweeps").exists()
    assert main(["plan", write_sweep()]) == 0
    assert "6 trials: 3 configurations, 2 seeds each" in capsys.readouterr().out


def test_plan_says_what_a_store_holds_already(
    half_finished: Store, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", write_sweep(), "--store", half_finished.uri, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["num_finished"], answer["num_remaining"]) == (3, 3)


@pytest.mark.thorough
def test_the_papers_sweeps_can_be_planned_without_their_data(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["plan", "houlsby_glue", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["num_trials"] == 720
    assert answer["estimate"]["seconds"] is None
    assert answer["missing"]


def test_status_counts_by_status_and_names_the_driver_at_work(
    half_finished: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", half_finished.uri, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["counts"] == {"completed": 3, "failed": 1, "planned": 2}
    assert answer["running"] is None
    with half_finished.lock():
        assert main(["status", half_finished.uri]) == 0
        output = capsys.readouterr().out
        assert "Running since" in output
        assert "last heard of 0 s ago" in output or "last heard of 1 s ago" in output
        assert main(["status", half_finished.uri, "--json"]) == 0
        running = json.loads(capsys.readouterr().out)["running"]
        assert running["pid"] == os.getpid()
        assert 0 <= running["heard_s_ago"] < 60


def test_status_says_when_a_driver_on_another_host_has_fallen_silent(
    half_finished: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Path(half_finished.path) / "lock.json"
    with half_finished.lock():
        holder = {**json.loads(lock.read_text()), "host": "elsewhere", "pid": 77, "pid_namespace": 1}
    lock.write_text(json.dumps(holder))
    os.utime(lock, (time.time() - 3600, time.time() - 3600))
    assert main(["status", half_finished.uri]) == 0
    output = capsys.readouterr().out
    assert "on elsewhere, process 77, but last heard of 1 h 00 min ago: a new driver may take its place." in output


def test_status_and_report_are_of_all_sweeps_of_a_store_or_of_one(
    half_finished: Store, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = plan_sweep({**values, "name": "other", "methods": ["full_finetuning"], "seeds": [0, 1, 2]})
    half_finished.begin(other.spec.to_json(), plan_table(other))

    def counts(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["counts"]

    assert counts("status", half_finished.uri) == {"completed": 3, "failed": 1, "planned": 3}
    assert counts("status", half_finished.uri, "--sweep", "small") == {"completed": 3, "failed": 1, "planned": 2}
    assert counts("status", half_finished.uri, "--sweep", "other") == {"planned": 3}
    assert counts("report", half_finished.uri, "--sweep", "small") == {"completed": 3, "failed": 1, "planned": 2}
    assert main(["status", half_finished.uri]) == 0
    assert "Sweeps that share this store: other, which was run last, small." in capsys.readouterr().out
    for command in ("status", "report", "resume"):
        assert main([command, half_finished.uri, "--sweep", "smal"]) == 2
        assert "did you mean 'small'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        *itertools.product(("status", "report", "resume", "export"), ("spec", "torn plan", "other plan", "trials")),
        *(("status", "lock"), ("resume", "lock")),
    ],
)
def test_a_damaged_store_is_refused_by_name_and_left_as_it_is(
    half_finished: Store, damage: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(half_finished.path)
    if damage == "spec":
        (place / "spec.json").write_text('{"name": ')
    elif damage == "torn plan":
        (place / "plan.parquet").write_bytes((place / "plan.parquet").read_bytes()[:-30])
    elif damage == "other plan":
        pyarrow.parquet.write_table(half_finished.trials().select(["status"]), place / "plan.parquet")
    elif damage == "lock":
        (place / "lock.json").write_text("{}")
    else:
        (place / "trials").rename(place / "elsewhere")
        (place / "trials").write_text("in the way")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert main([command, half_finished.uri]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert {"spec": "spec.json", "lock": "lock.json", "trials": "trials"}.get(damage, "plan.parquet") in captured.err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_status_shows_what_the_engines_do_while_they_do_it_and_afterwards_how_fast_they_were(
    half_finished: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = EngineStatus(engine="host/cpu", task="opinion", method="adapter", num_trials=2, examples_per_second=400.0)
    with half_finished.lock():
        half_finished.write_engine_snapshot([engine])
        assert main(["status", half_finished.uri]) == 0
        output = capsys.readouterr().out
        assert "as of 0 s ago" in output or "as of 1 s ago" in output
        assert "engine host/cpu: adapter on opinion, 2 trials, 400 examples/s" in output
        assert main(["status", half_finished.uri, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["engines"]["engines"][0]["num_trials"] == 2
        assert answer["engines"]["age_s"] < 60
    assert main(["status", half_finished.uri, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["engines"] is None
    (row,) = answer["throughput"]
    assert (row["engine"], row["method"], row["pack_size"]) == ("host/cpu", "adapter", 2.0)
    assert (row["examples_per_second"], row["pack_examples_per_second"]) == (200.0, 400.0)
    assert main(["status", half_finished.uri]) == 0
    output = capsys.readouterr().out
    assert "Engines" not in output
    assert "Throughput" in output


def test_a_second_driver_is_refused_with_the_first_ones_process(
    half_finished: Store, write_sweep: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with half_finished.lock():
        assert main(["run", write_sweep(), "--store", half_finished.uri]) == 2
    assert "process" in capsys.readouterr().err


def test_report_of_a_half_finished_sweep_is_written_and_printed(
    half_finished: Store, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", half_finished.uri]) == 0
    output = capsys.readouterr().out
    assert "3 completed" in output
    assert "1 failed" in output
    assert "data:image/" in (home / "store" / "report" / "report.html").read_text()


def test_doctor_finds_nothing_that_would_stop_a_sweep_here(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {"torch", "ray", "mlflow", "device", "free memory", "free disk", "store", "tracking"} <= findings.keys()
    assert not (home / "sweeps").exists()


@pytest.fixture
def health() -> Iterator[Callable[[], int]]:
    """Starts a server at whose `/health` everybody is told `OK`, or that hangs up; gives its port."""
    with contextlib.ExitStack() as stack:

        def start(*, hangs_up: bool = False) -> int:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    if not hangs_up:
                        self.send_response(200 if self.path == "/base/health" else 404)
                        self.end_headers()

                def log_message(self, *_: object) -> None: ...

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return int(server.server_address[1])

        yield start


def test_doctor_asks_a_tracking_server_whose_password_the_environment_holds(
    health: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:pw@127.0.0.1:{health()}/base/")
    found = doctor._tracking(None)
    assert found.ok
    assert found.found.endswith("answers 200")


def test_no_tracking_server_stops_a_sweep(health: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (f"127.0.0.1:{health(hangs_up=True)}", "127.0.0.1:port", f"127.0.0.1:{health()}"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{place}")
        found = doctor._tracking(None)
        assert found.ok
        assert "a sweep runs anyway" in found.found


def test_doctor_finds_a_user_without_a_home(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ADAPTUNE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert main(["doctor", "--json"]) == 1
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["cache"] == {
        "what": "cache",
        "found": "RuntimeError: Could not determine home directory.",
        "ok": False,
    }


def test_paper_writes_its_files_into_the_store(
    half_finished: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Takes long, and the tests of papers see that figures are drawn.
    monkeypatch.setattr("orchestrator.analysis.figures.render", lambda figure, form: b"<svg></svg>")
    assert main(["paper", half_finished.uri, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["paper"]
    folder = Path(half_finished.path) / "paper"
    assert (folder / "methods.md").read_text().startswith("We adapted")
    assert "6 trials in all: 2 not yet run, 3 completed, 1 failed" in (folder / "methods.md").read_text()
    assert (folder / "tables" / "scores.tex").exists()
    assert all(Path(file.removeprefix("file://")).exists() for file in written)
    with (folder / "methods.md").open("rb") as earlier:
        assert main(["paper", half_finished.uri]) == 0
        os.truncate(folder / "methods.md", 0)
        assert earlier.read().startswith(b"We adapted")  # whoever has a file open reads it to its end


def test_paper_of_a_sweep_without_a_trial_says_that_there_is_nothing(
    home: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_sweep(values)
    store = Store(home / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    assert main(["paper", store.uri, "--out", str(home / "elsewhere")]) == 0
    assert "files" in capsys.readouterr().out
    assert "nothing to describe" in (home / "elsewhere" / "methods.tex").read_text()
    assert not list((home / "elsewhere" / "figures").iterdir())
