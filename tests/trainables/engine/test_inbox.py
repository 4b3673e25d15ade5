"""The inbox: the oldest first, those that fit together taken together, from any thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from tests.factories import trial_config
from trainables.engine.inbox import Inbox
from trainables.training.running_trial import Job


def job(seed: int = 0) -> Job:
    config = trial_config(seed=seed)
    return Job(config=config, done=lambda outcome: None)


@given(seeds=st.lists(st.integers(0, 5), max_size=12), count=st.integers(0, 5), wanted=st.integers(0, 5))
def test_up_to_so_many_are_taken_in_order_and_the_others_stay_in_theirs(
    seeds: list[int], count: int, wanted: int
) -> None:
    inbox = Inbox()
    jobs = [job(seed) for seed in seeds]
    for each in jobs:
        inbox.put(each)
    fitting = [each for each in jobs if each.config.seed <= wanted]
    taken = inbox.take(count, lambda each: each.config.seed <= wanted)
    assert taken == fitting[:count]
    assert len(inbox) == len(jobs) - len(taken)
    assert inbox.take(100, lambda each: True) == [each for each in jobs if each not in taken]


def test_equal_trials_are_taken_one_by_one() -> None:
    inbox = Inbox()
    first, again = job(), job()
    inbox.put(first)
    inbox.put(again)
    assert [inbox.take(1, lambda each: True)[0] is each for each in (first, again)] == [True, True]


def test_waiting_ends_when_a_job_comes() -> None:
    inbox = Inbox()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(inbox.wait)
        inbox.put(job())
        assert waiting.result(timeout=5) is True


def test_waiting_ends_when_none_will_come() -> None:
    inbox = Inbox()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(inbox.wait)
        inbox.close()
        assert waiting.result(timeout=5) is False


def test_what_came_before_it_was_closed_is_still_there() -> None:
    inbox = Inbox()
    inbox.put(job())
    inbox.close()
    assert inbox.wait()
    assert len(inbox.take(5, lambda each: True)) == 1
    assert not inbox.wait()


def test_jobs_from_many_threads_are_each_taken_once() -> None:
    inbox = Inbox()
    taken: list[Job] = []
    per_thread, num_threads = 50, 4
    ready = threading.Barrier(num_threads + 1)

    def put(first: int) -> None:
        ready.wait()
        for seed in range(first, first + per_thread):
            inbox.put(job(seed))

    with ThreadPoolExecutor(num_threads) as pool:
        for k in range(num_threads):
            pool.submit(put, k * per_thread)
        ready.wait()
        while len(taken) < num_threads * per_thread:
            assert inbox.wait()
            taken += inbox.take(7, lambda each: True)
    seeds = [each.config.seed for each in taken]
    assert sorted(seeds) == list(range(num_threads * per_thread))
    for k in range(num_threads):  # and each thread's in the order it put them
        mine = [seed for seed in seeds if k * per_thread <= seed < (k + 1) * per_thread]
        assert mine == sorted(mine)


def test_a_job_can_be_withdrawn_until_it_is_taken() -> None:
    inbox = Inbox()
    waits, taken = job(1), job(2)
    inbox.put(waits)
    inbox.put(taken)
    assert inbox.take(1, lambda each: each is taken) == [taken]
    assert waits in inbox
    assert taken not in inbox
    assert inbox.withdraw(waits) is True
    assert inbox.withdraw(waits) is False
    assert inbox.withdraw(taken) is False
    assert len(inbox) == 0
