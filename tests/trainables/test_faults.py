"""Faults: all in one message, each with what came and what would have been right."""

from __future__ import annotations

import pickle

import pytest

from trainables.faults import FaultsError, UnavailableError, unknown_name


@pytest.mark.parametrize(("faults", "count"), [(["a"], "1 fault\n"), (["a", "b"], "2 faults\n")])
def test_a_message_counts_its_faults_and_gives_each_a_line(faults: list[str], count: str) -> None:
    text = str(FaultsError("sweep file", faults))
    assert text.startswith(f"sweep file: {count}")
    assert text.splitlines()[1:] == [f"  - {fault}" for fault in faults]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones() -> None:
    text = unknown_name("method", "adaptor", ["top_layers", "adapter"])
    assert text == "unknown method 'adaptor'; did you mean 'adapter'? Known: adapter, top_layers"


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert "did you mean" not in unknown_name("method", "qqq", ["adapter"])
    assert unknown_name("option", "qqq", []).endswith("Known: none")
    assert "unknown key 3" in unknown_name("key", 3, ["seed"])


@pytest.mark.parametrize("kind", [FaultsError, UnavailableError])
def test_an_error_crosses_processes_whole(kind: type[FaultsError]) -> None:
    error = pickle.loads(pickle.dumps(kind("task", ["one", "two"])))
    assert type(error) is kind
    assert (error.subject, error.faults) == ("task", ("one", "two"))
    assert str(error) == str(kind("task", ["one", "two"]))
    assert isinstance(error, ValueError)
