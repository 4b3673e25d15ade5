"""Two drivers take a bucket's store over at once: whoever lost the lock may fence the other off, which goes on."""

from __future__ import annotations

import uuid

import pytest

from orchestrator.store import Store
from orchestrator.store.fence import StoreLockedError
from tests.factories import measured_record
from tests.object_store import KEYS, serving


@pytest.fixture
def uri(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with serving() as server:
        yield server.uri(uuid.uuid4().hex)


@pytest.mark.thorough
def test_the_fence_of_a_driver_without_the_lock_stops_nobody(uri):
    store, late = Store(uri), Store(uri)
    with store.lock():
        store.append([measured_record("a")])
        late._folder.fence.put_new = store._folder.fence.put_new
        late._segments._fence_off(is_certain=True)  # of one that took the store over and lost it in the same moment
        store.append([measured_record("b")])
        store.append([measured_record("c")])
        assert sorted(store.statuses()) == ["a", "b", "c"]
    assert sorted(Store(uri).statuses()) == ["a", "b", "c"]


def test_the_fence_of_a_driver_with_the_lock_does(uri):
    store, other = Store(uri), Store(uri)
    with store.lock():
        store.append([measured_record("a")])
        nothing = store._segments.read().slice(0, 0)
        with other.lock(take_over=True), pytest.raises(StoreLockedError, match="has taken this store over"):
            store._segments.add(nothing)  # as one that has looked at the lock just before
    assert sorted(Store(uri).statuses()) == ["a"]
