"""What is a secret in a URI and in a text, and what is none."""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from orchestrator.planning.plan import plan_sweep
from orchestrator.scheduling.submit import entrypoint
from orchestrator.secrets import (
    MASK,
    address_faults,
    masked,
    reference_faults,
    store_faults,
    tracking_faults,
    without_settings,
)
from orchestrator.spec.space import Grid
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
        "S3://hunter2AKIA@bucket/path",
        "s3://AKIAEXAMPLE:12/hunter2@bucket/path",
        "s3://bucket/path?secretAccessKey=hunter2x",
        "s3://bucket/path?AWSAccessKeyId=hunter2x&region=eu",
        "https://host/path?clientSecret=hunter2x",
        "https://host/path?X-Amz-Signature=hunter2x",
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
        "postgresql://mlflow:hunter2#ssw0rd@db/mlflow",
        "postgresql://mlflow:hunter2?ss/w0'r\"d 1@db/mlflow",
        "postgresql://mlflow:1234/hunter2@db/mlflow",
        "postgresql://me@server:hunter2@server.example/mlflow",
        "mysql://:hunter2@db/mlflow",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC+18%7D%3BSERVER%3Ddb%3BPWD%3Dhunter2x%3BEncrypt%3Dno",
        "mssql+pyodbc:///?odbc_connect=Pwd={hunter2;x};Server=db",
        "postgresql://user@db/mlflow?sslpassword=hunter2x",
        "postgresql://user@db/mlflow?options=x&PGPASSWORD=hunter2x",
        "http://user:hunter2#x@tracking:5000",
        "http://tracking:5000/?authToken=hunter2x",
        "http://tracking:5000/#accessToken=hunter2x",
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
        "sweeps/a#b?c=d",
        "C:\\sweeps\\me@work\\a",
        "C:/sweeps/a#b?c",
        "user@host:/data/sweeps",
        "git@github.com:me/repository",
        "file:///C:/sweeps/me@work",
        "sqlite:////home/me:you@work/mlflow.db",
        "databricks://profile",
        "http://[::1]:8265/path/a@b",
        "https://host:443/path/rows@v1.csv?next_page=2&sort_key=name",
        "hf://datasets/me/rows@main/train.csv",
        "hdfs://me@host:8020/path/a@b",
        "abfs://container@account:443/path/a@b",
    ],
)
def test_a_uri_without_secrets_is_taken_and_shown_as_it_is(uri):
    assert store_faults("--store", uri) == []
    assert tracking_faults("--tracking-uri", uri) == []
    if "://" in uri or "@" not in uri:  # else it is no address
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


def test_the_secrets_of_a_connection_string_are_masked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("STORAGE", "AccountName=me;AccountKey=abc/def+gh==;EndpointSuffix=core.windows.net")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mssql+pyodbc:///?odbc_connect=Server%3Ddb%3BPWD%3D%7Bp%3Bsswords%7D")
    monkeypatch.setenv("PGPASSWORD", "hunter2hunter2")
    monkeypatch.setenv("clientSecret", "camel-hunter2")
    text = "abc/def+gh== and abc%2Fdef%2Bgh%3D%3D, p;sswords, hunter2hunter2, camel-hunter2, core.windows.net"
    assert masked(text) == "*** and ***, ***, ***, ***, core.windows.net"


def test_the_folder_of_a_shell_is_no_password(monkeypatch):
    monkeypatch.setenv("PWD", "/data/not/there/any/more")
    assert masked("in /data/not/there/any/more") == "in /data/not/there/any/more"


def test_a_place_is_shown_without_what_only_its_owner_needs_to_see():
    assert without_settings("s3://user@bucket/a?endpoint_override=x") == "s3://bucket/a"
    assert without_settings("abfs://container@account.blob/a?b") == "abfs://account.blob/a"
    assert without_settings("/data/what?/me@home//you@home/a") == "/data/what?/me@home//you@home/a"


@pytest.mark.parametrize(
    "text",
    [
        "num_tokens=3, sort_key=name, region=eu, learning_rate=0.001, adapter_size=8, tokens: 7, compass=north",
        'pad_token=\'[PAD]\', "sep_token": "[SEP]", ms_per_token=0.3',
        "http://head:8265 is away, ask me@work",
        "http://head:8265. Ask me@work",
        "cannot open 's3://bucket': AccessDenied for me@work",
        "(http://head:8265), me@work",
        "  token = self.next_token()",
        "hf_transformer is no hub token",
        "Authorization: none was sent",
    ],
    ids=lambda _: "text",  # since pytest puts a test's name into the environment, where secrets are looked for
)
def test_what_looks_like_a_secret_and_is_none_is_shown(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("connect(user='me', password='hunter 2', port=1)", "connect(user='me', password='***', port=1)"),
        ('{"clientSecret": "hunter\\"2", "a": 1}', '{"clientSecret": "***", "a": 1}'),
        ("dsn: host=db user=me password='hunter 2' dbname=x", "dsn: host=db user=me password='***' dbname=x"),
        ("--hub-token=hunter2, then", "--hub-token=***, then"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
        ("Driver=x;PWD={hunter}};2};Server=db", "Driver=x;PWD=***;Server=db"),
        ("odbc_connect=SERVER%3Ddb%3BPWD%3Dhunter2%3BEncrypt%3Dno", "odbc_connect=SERVER%3Ddb%3BPWD%3D***"),
        ("{'Authorization': 'Bearer hunter2'}", "{'Authorization': 'Bearer ***'}"),
        ("logged in with hf_HuNtErAbCdEfGhIjKlMnOp.", "logged in with ***."),
        ("from postgresql://a:hunter2@h1/db to mysql://b:hunter2@h2/db", "from postgresql://a:***@h1/db to mysql://b:***@h2/db"),
    ],
    ids=lambda _: "text",
)  # fmt: skip
def test_a_secret_in_what_others_say_is_masked(text, shown):
    assert masked(text) == shown


# The names of the databases that MLflow keeps runs in, and a few of their drivers.
DATABASES = st.sampled_from(["postgresql", "postgresql+psycopg2", "mysql", "mysql+pymysql", "mssql+pyodbc", "mariadb"])
PRINTABLE = st.characters(exclude_categories=("C", "Zl", "Zp"))
USERS = st.text("abcXYZ019._-%", max_size=8)


def read_by_sqlalchemy(uri):
    try:
        return make_url(uri)
    except ValueError:  # a colon after an @ begins what it takes for a port
        return None


@given(DATABASES, USERS, st.text(PRINTABLE, min_size=1, max_size=20))
@example("postgresql", "mlflow", "pa#ssw0rd1")
@example("postgresql", "user", "1234/abc")
@example("postgresql", "user", "5432 is no port")
@example("mysql", "", "'\"`?&=%2")
@example("mysql", "", "a@b/c@d")
def test_no_password_that_a_database_would_be_given_passes(database, user, typed):
    """As it was typed, and as SQLAlchemy reads it and writes it."""
    uri = f"{database}://{user}:{typed}@example:5432/mlflow?timeout=3"
    read = read_by_sqlalchemy(uri)
    assume(read and read.password and read.password != MASK)
    (fault,) = tracking_faults("--tracking-uri", uri)
    assert f"but {database}://{user}:{MASK}@example:5432/mlflow?timeout=3 has" in fault
    assert reference_faults("tasks", uri)
    written = read.render_as_string(hide_password=False)
    said = masked(f"cannot reach {written}: no route")
    assert f":{MASK}@" in said
    assert f":{quote(read.password, safe=' +')}@" not in said
    if "@" not in typed:
        shown = f"cannot reach '{database}://{user}:{MASK}@example:5432/mlflow?timeout=3': no route"
        assert masked(f"cannot reach '{uri}': no route") == shown


@given(st.text(PRINTABLE, min_size=8, max_size=20))
@example("pa#ssw0rd1")
@example("half@of-a-host")
@example("\\'\"<&> +/?#%41")
def test_a_password_in_the_tracking_uri_of_the_environment_is_masked_as_anyone_writes_it(typed):
    uri = f"postgresql://mlflow:{typed}@example/mlflow"
    url = read_by_sqlalchemy(uri)
    assume(url and url.password and len(url.password) >= 8 and len(set(url.password)) > 2)
    read = url.password
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        for written in (typed, read, quote(read), quote(read, safe=""), quote_plus(read), repr(read), json.dumps(read)):
            said = masked(f"cannot sign in with {written} at all")
            assert written.strip("'\"") not in said
            assert MASK in said


@given(st.sampled_from(["password", "sslpassword", "PWD", "authToken"]), st.text(PRINTABLE, min_size=1, max_size=20))
def test_no_password_among_the_parameters_passes(name, typed):
    uri = f"postgresql://user@example/mlflow?a=b&{name}={typed}"
    assume(make_url(uri).query.get(name))
    (fault,) = tracking_faults("--tracking-uri", uri)
    assert f"but postgresql://user@example/mlflow?a=b&{name}={MASK}{'&' if '&' in typed else ' has'}" in fault


@given(st.text(PRINTABLE, max_size=40))
def test_text_that_is_masked_stays_as_it_is(text):
    once = masked(f"s3://a:b{text}@c password={text}")
    assert masked(once) == once


def test_a_job_of_a_tracking_store_that_passes_holds_none():
    """What stands in a job's command line is what the refusal has let through."""
    for uri in ("postgresql://mlflow@db/mlflow", "http://10.0.0.1:5000", "sqlite:////data/a#b?c.db"):
        assert tracking_faults("--tracking-uri", uri) == []
        command = entrypoint("any", None, uri)
        assert shlex.split(command)[-1] == uri
        assert masked(command) == command


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


@pytest.mark.parametrize(
    "backbone",
    [
        "https://me:hunter2#x@host/bert",
        Grid(["minilm", "s3://AK:hunter2@bucket"]),
        "hf_hunter2AbCdEfGhIjKlMnOp",
    ],
)
def test_a_backbone_that_holds_a_secret_is_refused_in_any_form(backbone):
    with pytest.raises(FaultsError) as raised:
        plan_sweep({"name": "leaky", "tasks": ["toy/sentiment"], "backbone": backbone, "methods": ["layernorm"]})
    assert "backbone must hold no secrets" in str(raised.value)
    assert "hunter2" not in masked(str(raised.value))


def test_an_address_without_a_scheme_is_refused_where_it_holds_a_password():
    (fault,) = address_faults("--address", "user:1234/hunter2@head:6379")
    assert "hunter2" not in fault
