"""Of two drivers that start on one store one wins, in containers too, and one that lost its store writes no more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import Store
from orchestrator.store.lock_places import LOCK
from tests.object_store import ObjectStore, serving_with_keys
from tests.orchestrator.store.racing import Racer, race

FEW = 2  # pairs in the tests that take seconds
MANY = 50
# A pair in which one falls silent takes ten seconds or more; as many only where that is asked for.
SILENT = MANY if os.environ.get("ADAPTUNE_CHAOS") == "1" else FEW

NewStore = Callable[[], str]


@pytest.fixture(scope="module")
def object_store() -> Iterator[ObjectStore]:
    with serving_with_keys() as store:
        yield store


@pytest.fixture(params=["disk", "bucket"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """The URI of a store that nobody has used."""
    numbers = iter(range(1_000_000))
    if request.param == "disk":
        return lambda: str(tmp_path / f"store-{next(numbers)}")
    bucket = request.getfixturevalue("object_store")
    return lambda: bucket.uri(f"{tmp_path.name}-{next(numbers)}")


@pytest.fixture
def make() -> Iterator[Callable[[], Racer]]:
    """Starts a driver's process."""
    made: list[Racer] = []

    def start() -> Racer:
        made.append(Racer())
        return made[-1]

    yield start
    for racer in made:
        racer.kill()


@pytest.fixture(scope="module")
def pair(object_store: ObjectStore) -> Iterator[list[Racer]]:
    racers = [Racer(), Racer()]
    yield racers
    for racer in racers:
        racer.kill()


def one_wins(uri: str, pair: list[Racer], *, take_over: bool = False) -> dict[str, Any]:
    """Have a pair race for a store; what the one that won has found there.

    Of two that are told to take over, the second may take over from the first, which then writes nothing more.
    """
    winners, answers = race(uri, pair, take_over=take_over)
    assert len(winners) == 1 or (take_over and len(winners) == 2), answers
    for answer in answers:
        assert answer["won"] or "is at work" in answer["why"] or (take_over and "has taken this store" in answer["why"])
    for winner in winners:
        winner.told(do="end")
    stayed = [winner for winner in winners if winner.hears()["left"]]
    assert len(stayed) == 1, answers
    won = answers[pair.index(stayed[0])]
    assert sorted(Store(uri).statuses()) == sorted([*won["there"], won["name"], f"{won['name']}-end"])
    assert Store(uri).holder() is None
    return won


def falls_silent(uri: str, pair: list[Racer], held: Racer, *, late: bool, take_over: bool, after_s: float) -> None:
    """A driver stops somewhere in the middle of its work, and wakes when another one has taken its place."""
    held.told(do="hold", uri=uri, late=late)
    assert held.hears() == {"held": True}
    time.sleep(after_s)
    held.signal(signal.SIGSTOP)
    won = one_wins(uri, pair, take_over=take_over)
    held.signal(signal.SIGCONT)
    answer = held.hears()
    assert "has taken this store over" in answer["lost"]
    # Whatever it wrote was there when the other one came. The last may be there though it had no answer.
    its = [trial_id for trial_id in won["there"] if trial_id.startswith("held-")]
    assert answer["recorded"] <= len(its) <= answer["recorded"] + 1
    assert sorted(Store(uri).statuses()) == sorted([*won["there"], won["name"], f"{won['name']}-end"])


@pytest.mark.timeout(120)
def test_of_two_drivers_that_start_at_once_in_two_containers_one_wins(new_store: NewStore, pair: list[Racer]) -> None:
    for _ in range(FEW):
        one_wins(new_store(), pair)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("take_over", [False, True], ids=["after silence", "as asked for"])
@pytest.mark.thorough
def test_a_driver_that_wakes_up_after_another_has_taken_its_place_writes_nothing_more(
    new_store: NewStore, pair: list[Racer], make: Callable[[], Racer], take_over: bool
) -> None:
    falls_silent(new_store(), pair, make(), late=True, take_over=take_over, after_s=0.3)


@pytest.mark.timeout(120)
@pytest.mark.thorough
def test_a_driver_that_was_killed_in_a_container_is_followed(
    tmp_path: Path, pair: list[Racer], make: Callable[[], Racer]
) -> None:
    uri, killed = str(tmp_path / "store"), make()
    killed.told(do="hold", uri=uri)
    assert killed.hears() == {"held": True}
    while not Store(uri).statuses():
        time.sleep(0.05)
    killed.kill()
    assert any(trial_id.startswith("held-") for trial_id in one_wins(uri, pair)["there"])


@pytest.mark.thorough
def test_a_bucket_keeps_the_number_of_the_last_driver(object_store: ObjectStore) -> None:
    store = Store(object_store.uri("numbers"))
    for _ in range(2):
        with store.lock():
            assert store.holder().pid == os.getpid()
    assert store.holder() is None
    assert store.silent_s() is None
    assert b'"fence": 2' in bytes(store.filesystem.open_input_file(f"{store.path}/{LOCK}").read())


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_of_fifty_pairs_of_drivers_in_containers_one_wins_each_time(new_store: NewStore, pair: list[Racer]) -> None:
    for _ in range(MANY):
        one_wins(new_store(), pair)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("take_over", [False, True], ids=["after silence", "as asked for"])
@pytest.mark.thorough
def test_of_many_pairs_of_drivers_that_take_over_one_wins_each_time(
    new_store: NewStore, pair: list[Racer], make: Callable[[], Racer], take_over: bool
) -> None:
    for number in range(SILENT):
        held = make()
        late, after_s = bool(number % 2), 0.037 * (number % 20)
        falls_silent(new_store(), pair, held, late=late, take_over=take_over, after_s=after_s)
        held.kill()
