"""What is a secret in a URI and in a text, and what is none."""

from __future__ import annotations

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.secrets import (
    address_faults,
    masked,
    reference_faults,
    store_faults,
    tracking_faults,
    without_settings,
)
from trainables.faults import FaultsError

SECRET = "hunter2/9f+X@q=="


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/path",
        "s3://AKIAEXAMPLE@bucket/path",
        "s3://bucket/path?access_key=AKIAEXAMPLE&secret_key=hunter2hunter2",
        "s3://bucket/path?region=eu&session_token=hunter2hunter2",
        "abfs://container@account.dfs.core.windows.net/path?sas_token=hunter2hunter2",
        "abfs://account:hunter2hunter2@container/path",
        "abfss://container@account.dfs.core.windows.net/path?sv=2022&sig=hunter2%2Fhunter2",
        "gs://bucket/path?access_token=hunter2hunter2",
        "az://container/path?account_key=hunter2hunter2",
    ],
)
def test_a_store_whose_uri_holds_a_secret_is_refused_without_showing_it(uri):
    (fault,) = store_faults("--store", uri)
    assert "hunter2" not in fault
    assert "AKIA" not in fault or "access_key" in uri
    assert "***" in fault
    assert "use " in fault
    assert "hunter2" not in masked(f"could not open '{uri}': no route")


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://user:{SECRET}@host/db",
        f"postgresql+psycopg2://user:{SECRET}@host:5432/db",
        "postgres://user@host/db?password=hunter2hunter2",
        f"mysql+pymysql://user:{SECRET}@host/db",
        f"http://user:{SECRET}@tracking:5000",
        "https://hunter2hunter2@tracking:5000/",
    ],
)
def test_a_tracking_store_whose_uri_holds_a_secret_is_refused_without_showing_it(uri):
    (fault,) = tracking_faults("--tracking-uri", uri)
    assert "hunter2" not in fault
    assert "MLFLOW_TRACKING_" in fault
    assert "hunter2" not in masked(f"(psycopg2.OperationalError) {uri} is away")


@pytest.mark.parametrize(
    "uri",
    [
        "sweeps/mine",
        "/data/user:name@host/store",
        "s3://bucket/sweeps/mine",
        "s3://bucket/a:b@c?region=eu-central-1&scheme=http&endpoint_override=127.0.0.1:9000",
        "gs://bucket/path",
        "abfs://container@account.dfs.core.windows.net/path",
        "hdfs://user@host:8020/path",
        "file:///data/store",
        "sqlite:////home/me/mlflow.db",
        "postgresql://user@host:5432/db",
        "http://tracking:5000/path/a@b",
        "http://10.0.0.1:8265",
        "auto",
        "10.0.0.1:6379",
        "",
    ],
)
def test_a_uri_without_secrets_is_taken_and_shown_as_it_is(uri):
    assert store_faults("--store", uri) == []
    assert tracking_faults("--tracking-uri", uri) == []
    assert address_faults("--address", uri) == []
    assert masked(f"at {uri}.") == f"at {uri}."


def test_a_job_server_is_reached_with_a_token_of_the_environment():
    (fault,) = address_faults("--address", "http://user:hunter2hunter2@head:8265")
    assert "RAY_AUTH_TOKEN" in fault
    assert "hunter2" not in fault


def test_secrets_of_the_environment_are_masked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtn/FEMI+K7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:corr%40ct-horse@host/db")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/me/.ray/auth_token")
    text = "signed with wJalrXUtn/FEMI+K7 or wJalrXUtn%2FFEMI%2BK7, as corr@ct-horse, from /home/me/.ray/auth_token"
    assert masked(text) == "signed with *** or ***, as ***, from /home/me/.ray/auth_token"


def test_a_key_that_begins_like_a_path_is_masked_and_a_file_with_credentials_is_named(monkeypatch, tmp_path):
    (held := tmp_path / "secret").write_text("x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/hunter2/hunter2+hunter2")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/not/there/account.json")
    monkeypatch.setenv("DATABASE_PASSWORD", str(held))
    text = masked(f"/hunter2/hunter2+hunter2 signs, /not/there/account.json is missing, {held} is read")
    assert text == f"*** signs, /not/there/account.json is missing, {held} is read"


def test_a_place_is_shown_without_what_only_its_owner_needs_to_see():
    assert without_settings("s3://user@bucket/a?endpoint_override=x") == "s3://bucket/a"
    assert without_settings("abfs://container@account.blob/a?b") == "abfs://account.blob/a"
    assert without_settings("/data/what?/me@home//you@home/a") == "/data/what?/me@home//you@home/a"


def test_what_looks_like_a_setting_and_is_none_is_shown():
    text = "num_tokens=3, sort_key=name, region=eu, learning_rate=0.001, adapter_size=8, tokens: 7"
    assert masked(text) == text


def test_a_sweep_that_names_a_secret_is_refused_without_showing_it():
    uri = "s3://AKIAEXAMPLE:hunter2hunter2@bucket/task"
    assert reference_faults("tasks", uri)
    values = {
        "name": "leaky",
        "tasks": ["toy/sentiment", uri],
        "backbone": "s3://bucket/bert?secret_key=hunter2hunter2",
        "methods": ["layernorm"],
    }
    with pytest.raises(FaultsError) as raised:
        plan_sweep(values)
    said = str(raised.value)
    assert "hunter2" not in said
    assert "tasks must hold no secrets" in said
    assert "backbone must hold no secrets" in said
