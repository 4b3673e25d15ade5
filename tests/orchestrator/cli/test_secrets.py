"""Secrets are planted wherever users have them, and looked for in everything that a sweep says, keeps and sends."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.cli import main
from orchestrator.planning.plan import plan_sweep
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run.recording import Recording, Silent
from orchestrator.scheduling.jobs import JobServer
from orchestrator.scheduling.submit import submit_job
from orchestrator.store import Store
from orchestrator.tracking import Tracker
from orchestrator.tracking.tracker import Patience
from tests.factories import plan_rows
from tests.object_store import KEYS, serving
from tests.orchestrator.scheduling.fake_job_client import FakeJobClient

ROOT = Path(__file__).resolve().parents[3]
KEY, PASSWORD, TOKEN = "wJalrXUtnFEMI/K7MDENG+bPx", "correct-horse-battery", "tok-5f2a9c77d1e84b"
PLANTED = (KEY, PASSWORD, TOKEN, "wJalrXUtnFEMI%2FK7MDENG%2BbPx")
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": KEY,
    "PGPASSWORD": PASSWORD,
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "RAY_AUTH_TOKEN": TOKEN,
    "HF_TOKEN": TOKEN,
}
BUCKET = f"s3://AKIAEXAMPLE:{KEY}@bucket/sweep"
DATABASE = f"postgresql://user:{PASSWORD}@database/mlflow"
SERVER = f"http://user:{TOKEN}@server:5000"
REFUSED = [
    ["run", "quickstart", "--store", BUCKET],
    ["run", "quickstart", "--tracking-uri", DATABASE],
    ["run", "quickstart", "--tracking-uri", SERVER],
    ["run", "quickstart", "--address", f"ray://user:{TOKEN}@head:10001"],
    ["run", "quickstart", "--set", f"tasks=[{BUCKET}]"],
    ["plan", "quickstart", "--store", BUCKET],
    ["resume", BUCKET],
    ["status", BUCKET],
    ["report", BUCKET],
    ["paper", BUCKET],
    ["export", BUCKET],
    ["ablate", BUCKET],
    ["ablate", "sweeps/any", "--tracking-uri", DATABASE],
    ["ui", "--tracking-uri", DATABASE],
    ["ui", "--tracking-uri", SERVER],
    ["submit", "quickstart", "--address", f"http://user:{TOKEN}@head:8265"],
    ["submit", "quickstart", "--address", "http://head:8265", "--store", BUCKET, "--tracking-uri", DATABASE],
]


def holds_secret(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def everything_in(folder: Path) -> dict[str, str]:
    """All that lies in a folder, by file and as text: files as they are, and tables row by row."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path)] = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                found[str(path)] += f"{table.schema.metadata}{table.to_pylist()}"
    return found


def leaks(folder: Path) -> list[str]:
    """The files in a folder that hold a secret."""
    return [name for name, text in everything_in(folder).items() if holds_secret(text)]


@pytest.fixture
def planted(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: " ".join(arguments)[:30])
def test_a_secret_on_the_command_line_is_refused_with_what_to_do_and_without_showing_it(
    arguments: list[str], planted: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "must hold no secrets" in captured.err
    assert "use " in captured.err
    assert not holds_secret(captured.out + captured.err + caplog.text)
    assert not (planted / "sweeps").exists()


def test_the_doctor_shows_no_secret_of_the_environment(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user:{PASSWORD}@127.0.0.1:9/mlflow")
    main(["doctor", "--json"])
    captured = capsys.readouterr()
    assert "postgresql://user:***@127.0.0.1:9/mlflow" in captured.out
    assert not holds_secret(captured.out + captured.err)


def test_an_error_that_nobody_expected_shows_none(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise RuntimeError(f"cannot sign with {KEY} for {DATABASE}")

    monkeypatch.setattr("orchestrator.cli.look.show_status", fail)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(RuntimeError) as raised:
        main(["status", "sweeps/any"])
    sys.excepthook(RuntimeError, raised.value, raised.tb)
    said = capsys.readouterr().err
    assert "cannot sign with *** for postgresql://user:***@database/mlflow" in said
    assert not holds_secret(said)


class Client(FakeJobClient):
    """A job server's client that also keeps what the files hold that it is sent."""

    sent = ""

    def submit_job(self, **job: Any) -> str:
        self.sent += f"{job}{everything_in(Path(job['runtime_env']['working_dir']))}"
        return super().submit_job(**job)


def test_a_job_is_sent_without_secrets(
    planted: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DATABASE)
    server = JobServer(client := Client(), "http://head:8265")
    submit_job(plan_sweep(values), server, store="s3://bucket/sweep", tracking_uri=None)
    assert "--store s3://bucket/sweep" in client.sent
    captured = capsys.readouterr()
    assert not holds_secret(client.sent + captured.out + captured.err)


def failed(trial_id: str, error: str) -> TrialRecord:
    return TrialRecord(
        sweep="leaky", trial_id=trial_id, config_id=f"c-{trial_id}", task="t", backbone="b", method="m", seed=0,
        status=TrialStatus.FAILED, hyperparameters={}, error=error, started_at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def test_an_error_of_a_trial_is_recorded_without_the_secrets_in_it(
    planted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the store and in MLflow's database."""
    store = Store("sweeps/leaky")
    uri = f"sqlite:///{planted / 'mlflow.db'}"
    with store.lock():
        store.begin(
            json.dumps({"name": "leaky", "tasks": ["t"], "methods": [{"m": {}}]}), plan_rows("t0", sweep="leaky")
        )
        driver = Recording(
            store,
            lambda: Tracker("leaky", store.spec_json(), tracking_uri=uri),
            Silent(),
            known=store.records,
            planned=None,
        )
        trace = f'File "x.py", line 3\n  open("{BUCKET}")\nOSError: 403 for {KEY}, see {SERVER}?sig={TOKEN}'
        driver.trials_ended([failed("t0", trace)])
        driver.close_tracker(TrialStatus.FAILED)
    (segment,) = (planted / "sweeps" / "leaky" / "trials").glob("*.parquet")
    (row,) = pq.read_table(segment).to_pylist()
    assert row["error"].endswith("OSError: 403 for ***, see http://user:***@server:5000?sig=***")
    assert "leaky" in (planted / "mlflow.db").read_bytes().decode("latin-1")
    assert leaks(planted) == []
    assert not holds_secret(caplog.text)


def test_a_database_that_cannot_be_reached_is_told_of_without_its_password(
    planted: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user:{PASSWORD}@127.0.0.1:9/mlflow")
    caplog.set_level(logging.INFO, logger="orchestrator")
    tracker = Tracker("any", '{"name": "any", "tasks": ["t"], "methods": []}', patience=Patience(first_wait_s=0.1))
    assert not tracker.close(TrialStatus.FAILED, timeout_s=0.5)
    assert "postgresql://user:***@127.0.0.1:9/mlflow cannot be written" in caplog.text
    assert not holds_secret(caplog.text)


@pytest.fixture
def ray_tmp() -> Iterator[Path]:
    """Where Ray keeps its logs; its sockets want a short path."""
    folder = Path(tempfile.mkdtemp(prefix="adaptune-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_sweep_leaves_no_secret_anywhere(planted: Path, write_sweep: Any, ray_tmp: Path) -> None:
    """On a bucket, with everything told: what it says, the bucket, MLflow's database and Ray's logs."""
    told = {"RAY_TMPDIR": str(ray_tmp), "ADAPTUNE_LOG": "debug", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **KEYS, **ENVIRONMENT, **told}
    sweep = write_sweep(seeds=[0], methods=[{"adapter": {"adapter_size": 1}}])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | ENVIRONMENT).items():
            patch.setenv(name, value)
        with serving() as bucket:
            ended = subprocess.run(
                [sys.executable, "-m", "adaptune", "run", sweep, "--store", bucket.uri("leaky")],
                capture_output=True,
                text=True,
                env=environment,
                timeout=200,
            )
            assert ended.returncode == 0, ended.stderr
            store = Store(bucket.uri("leaky"))
            copy = planted / "copy"
            for info in store.filesystem.get_file_info(pyarrow_selector(store.path)):
                if info.is_file:
                    place = copy / info.path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(store.filesystem.open_input_file(info.path).read())
    assert list(copy.rglob("report.html"))
    assert list(ray_tmp.rglob("*.log")) or list(ray_tmp.rglob("*.out"))
    assert not holds_secret(ended.stdout)
    assert not holds_secret(ended.stderr)
    assert leaks(planted) + leaks(ray_tmp) == []


def pyarrow_selector(path: str) -> Any:
    from pyarrow.fs import FileSelector

    return FileSelector(path, recursive=True)
