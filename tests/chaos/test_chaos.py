"""A short version of `python -m tests.chaos`: two rounds whose faults are not left to chance."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.chaos.faults import BY_NAME, FAULTS
from tests.chaos.rounds import Strike, draw
from tests.chaos.session import Session
from tests.chaos.sweep import Ground

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]  # under a minute on two idle cores


def strike(name: str, after_trials: int, *, lasts_s: float = 0.0) -> Strike:
    return Strike(fault=BY_NAME[name], after_trials=after_trials, delay_s=0.0, lasts_s=lasts_s)


ROUNDS = {
    "what trains dies, then the driver": [
        strike("engine killed", 0),
        strike("pool killed", 2),
        strike("trial killed", 4),
        strike("segment torn", 5),
        strike("driver killed", 6),
    ],
    "the cluster and the storage fail, then the user wants an end": [
        strike("node killed", 1, lasts_s=1.0),
        strike("MLflow locked", 2, lasts_s=3.0),
        strike("disk full", 3, lasts_s=2.0),
        strike("interrupted once", 6),
    ],
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("chaos")
    ground = Ground(folder / "ground", rows=128, num_epochs=8, rates=(5e-3, 1e-2))
    with Session(folder / "session", seed=0, ground=ground) as session:
        undisturbed = session.undisturbed()
        assert undisturbed.violations == [], undisturbed.log
        yield session


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.thorough
def test_a_sweep_that_everything_happens_to_ends_as_one_that_nothing_happened_to(session: Session, name: str) -> None:
    result = session.play(list(ROUNDS).index(name), ROUNDS[name])
    assert result.violations == [], "\n".join(result.log)
    assert len(result.met) == len(ROUNDS[name]), "\n".join(result.log)


def test_every_fault_comes_first_in_a_round_and_a_seed_draws_the_same_again() -> None:
    first = [draw(0, number, 18) for number in range(len(FAULTS))]
    assert {strike.fault.name for strikes in first for strike in strikes} == set(BY_NAME)
    assert first == [draw(0, number, 18) for number in range(len(FAULTS))]
    random.seed(1)  # nobody else's random numbers have a part in it
    assert first == [draw(0, number, 18) for number in range(len(FAULTS))]
    assert first != [draw(1, number, 18) for number in range(len(FAULTS))]
