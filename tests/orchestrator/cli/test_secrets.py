"""Secrets are planted wherever users have them, and looked for in everything that a sweep says, keeps and sends."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
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
KEY = "wJalrXUtnFEMI/K7MDENG+bPx"
HUB_TOKEN = "hf_VuFqJzXwRkTnBpLsDyGcHmAe"
# One for each place: a secret that two places shared would be masked in one for what is known of the other.
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_SESSION_TOKEN": "session-Zk9vQx2m7w",
    "AZURE_CLIENT_SECRET": "azure-8Q~tLp4sWe",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=me;AccountKey=stor/Age9+Kx==;EndpointSuffix=core.windows.net",
    "COMPANY_PROXY": "http://me:proxy-pa#ss?31@127.0.0.1:3128",
    "MLFLOW_TRACKING_PASSWORD": "correct-horse-battery",
    "MLFLOW_TRACKING_TOKEN": "mlflow-e41c09ab77",
    "PGPASSWORD": "staple \"n' glue&co",
    "RAY_AUTH_TOKEN": "tok-5f2a9c77d1e84b",
    "HF_TOKEN": HUB_TOKEN,
    "npm_config__authToken": "npm-77aa10f3c2d9",
}
# And those that stand in no variable, as each of the places below takes them.
IN_BUCKET, IN_DATABASE, IN_SERVER = "b2JqZWN0/c3RvcmU+x", "pa#ss/w0rd?'1 2", "serv/er#word"
IN_PARAMETER, IN_ODBC, IN_ADDRESS, IN_TASK = "sslp-39fe1", "odbcPw-71", "addr-5c6d7e", "task-Pa$$-90"
IN_HUB_TOKEN = "hf_PqWmZnXbVcLkJhGfDsAyTrEu"
PLANTED = (
    *(value for name, value in ENVIRONMENT.items() if name not in ("AZURE_STORAGE_CONNECTION_STRING", "COMPANY_PROXY")),
    *("stor/Age9+Kx==", "stor%2FAge9", "proxy-pa#ss?31", "proxy-pa%23ss"),
    *("wJalrXUtnFEMI%2FK7MDENG%2BbPx", "staple%20%22n", "staple+%22n", "staple &quot;n", "glue&co", "glue&amp;co"),
    *(IN_BUCKET, IN_DATABASE, "pa#ss/w0rd", IN_SERVER, IN_PARAMETER, IN_ODBC, IN_ADDRESS, IN_TASK, IN_HUB_TOKEN),
)
BUCKET = f"s3://AKIAEXAMPLE:{IN_BUCKET}@bucket/sweep"
DATABASE = f"postgresql://user:{IN_DATABASE}@database/mlflow"
SERVER = f"http://user:{IN_SERVER}@server:5000"
ODBC = f"mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC+18%7D%3BSERVER%3Ddb%3BPWD%3D{IN_ODBC}%3BEncrypt%3Dno"
REFUSED = [
    ["run", "quickstart", "--store", BUCKET],
    ["run", "quickstart", "--tracking-uri", DATABASE],
    ["run", "quickstart", "--tracking-uri", SERVER],
    ["run", "quickstart", "--tracking-uri", f"mysql+pymysql://user:1234/{IN_PARAMETER}@database:3306/mlflow"],
    ["run", "quickstart", "--tracking-uri", f"postgresql://user@database/mlflow?sslpassword={IN_PARAMETER}"],
    ["run", "quickstart", "--tracking-uri", f"http://server:5000/?clientSecret={IN_PARAMETER}"],
    ["run", "quickstart", "--tracking-uri", ODBC],
    ["run", "quickstart", "--address", f"ray://user:{IN_ADDRESS}@head:10001"],
    ["run", "quickstart", "--address", f"user:{IN_ADDRESS}@head:6379"],
    ["run", "quickstart", "--set", f"tasks=[{BUCKET}]"],
    ["plan", "quickstart", "--set", f"tasks=['https://user:{IN_TASK}@host/train.csv']"],
    ["plan", "quickstart", "--set", f"backbone=https://user:{IN_TASK}@host/bert"],
    ["plan", "quickstart", "--set", f"backbone={IN_HUB_TOKEN}"],
    ["simulate", "quickstart", "--set", f"tasks=['https://host/train.csv?authToken={IN_PARAMETER}']"],
    ["sequence", f"https://user:{IN_TASK}@host/train.csv", "toy/sentiment"],
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
    ["submit", "quickstart", "--address", f"http://user:{IN_ADDRESS}@head:8265"],
    ["jobs", "--address", f"user:{IN_ADDRESS}@head:8265"],
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
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user:{IN_DATABASE}@127.0.0.1:9/mlflow")
    main(["doctor", "--json"])
    captured = capsys.readouterr()
    assert "postgresql://user:***@127.0.0.1:9/mlflow" in captured.out
    assert not holds_secret(captured.out + captured.err)


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_an_error_that_nobody_expected_shows_none(level: str, planted: Path) -> None:
    """In a process of its own, since pytest would take the log for itself: in its sentence, and in its traceback."""
    program = textwrap.dedent(
        f"""
        import sys
        from orchestrator.cli import look, main
        def fail(*_, **__):
            raise RuntimeError({f"cannot sign with {KEY} for {DATABASE}"!r})
        look.show_status = fail
        sys.exit(main(["status", "sweeps/any"]))
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "ADAPTUNE_LOG": level, "PYTHONPATH": str(ROOT)},
        timeout=200,
    )
    assert ended.returncode == 4
    words = "RuntimeError: cannot sign with *** for postgresql://user:***@database/mlflow"
    said = f"adaptune: ended by an error, {words} (<string>, line 5); ADAPTUNE_LOG=debug shows its traceback"
    assert said in ended.stderr.splitlines()
    assert ("Traceback" in ended.stderr) == (level == "debug")
    assert not holds_secret(ended.stderr)


def test_an_error_of_a_thread_shows_none(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    main(["--version"])

    def fail() -> None:
        raise RuntimeError(f"cannot reach {DATABASE}")

    (thread := threading.Thread(target=fail)).start()
    thread.join()
    said = capsys.readouterr().err
    assert said.endswith("RuntimeError: cannot reach postgresql://user:***@database/mlflow\n")
    assert not holds_secret(said)


def test_mlflow_logs_through_our_own_lines(planted: Path) -> None:
    """It would write to the terminal itself, with the password of a database it cannot reach."""
    program = textwrap.dedent(
        f"""
        import logging
        from orchestrator.cli import main
        main(["--version"])
        import mlflow
        logging.getLogger("mlflow.any").warning("cannot reach %s", {DATABASE!r})
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=200,
    )
    assert ended.stderr.endswith("mlflow.any: cannot reach postgresql://user:***@database/mlflow\n")
    assert not holds_secret(ended.stderr)


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
        trace = f'File "x.py", line 3\n  open("{BUCKET}")\nOSError: 403 for {KEY}, see {SERVER}?sig={IN_PARAMETER}'
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
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://user:{IN_DATABASE}@127.0.0.1:9/mlflow")
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
