"""A bucket that does not let us in is a fault, whatever its client does about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import adaptune
from orchestrator.store import Store, reach
from tests.object_store import KEYS, refusing
from trainables import tasks
from trainables.backbones.loading import describe_backbone
from trainables.faults import FaultsError

URIS = {"abfs://container@account.blob.core.windows.net/path": "az login", "gs://bucket/path": "gcloud auth"}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was asked in one test is asked again in the next."""
    reach._open.clear()
    yield
    reach._open.clear()


@pytest.mark.parametrize("uri", URIS)
def test_a_client_that_ends_the_process_is_one_clear_fault(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "terminate called after throwing an instance of 'X'\n  what():  Failed to get token\nSee troubleshooting"
    monkeypatch.setattr(reach, "_PROBE", f"import os, sys; print({says!r}, file=sys.stderr, flush=True); os.abort()")
    with pytest.raises(FaultsError, match=rf"lets us in, but Failed to get token; .*{URIS[uri]}"):
        Store(uri)


@pytest.mark.parametrize("uri", URIS)
def test_a_client_that_tries_for_minutes_is_not_waited_for(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_PROBE", "import time; time.sleep(600)")
    monkeypatch.setattr(reach, "ANSWER_WITHIN_S", 0.5)
    with pytest.raises(FaultsError, match="has not answered within"):
        Store(uri)


def test_a_client_that_is_let_in_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_PROBE", "")
    assert reach.reach_faults("gs://bucket/path") == []
    monkeypatch.setattr(reach, "_PROBE", "raise SystemExit(1)")
    assert reach.reach_faults("gs://bucket/path") == []


def test_who_has_got_credentials_since_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_PROBE", "raise SystemExit('no credentials')")
    assert reach.reach_faults("gs://bucket/path")
    monkeypatch.setattr(reach, "_PROBE", "")
    assert reach.reach_faults("gs://bucket/path") == []


def test_of_other_places_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_PROBE", "raise SystemExit(1)")
    assert reach.reach_faults("s3://bucket/path") == []
    assert reach.reach_faults("/data/store") == []


ASKED: dict[str, tuple[Callable[[str], Any], str]] = {
    "a store to write": (lambda uri: Store(uri).lock().__enter__(), "must be writable.*InvalidAccessKeyId"),
    "a store to read": (adaptune.load_results, "must be readable.*ACCESS_DENIED"),
    "a task": (tasks.load, "must be a folder or a file that can be read.*Credentials come from the environment"),
    "a backbone": (describe_backbone, "must be a folder that can be read.*Credentials come from the environment"),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_wrong_key_is_one_fault_of_whatever_is_asked_for(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    ask, said = ASKED[what]
    with refusing() as bucket, pytest.raises(FaultsError, match=said) as refusal:
        ask(bucket.uri("x"))
    assert len(refusal.value.faults) == 1
