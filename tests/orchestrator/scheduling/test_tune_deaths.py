"""A process that dies ends no sweep, whatever Ray calls its death."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
from ray.air.execution._internal import RayActorManager
from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from orchestrator.scheduling import recorder
from orchestrator.scheduling.recorder import Recorder
from orchestrator.scheduling.tune_deaths import outlive_deaths

A_TASK_FAILED = RayTaskError("next", "Traceback", ValueError("of the trial's own"))


class Fails:
    """Tune's own manager of processes, and what it says of one whose task failed."""

    def __init__(self) -> None:
        self.manager = RayActorManager(MagicMock())
        self.died, self.failed, self.told = MagicMock(), MagicMock(), MagicMock()
        self.actor = self.manager.add_actor(object, {}, MagicMock(), on_error=self.died)
        self.manager._live_actors_to_ray_actors_resources[self.actor] = (MagicMock(), MagicMock())

    def of(self, error: Exception) -> None:
        task: Any = SimpleNamespace(_tracked_actor=self.actor, _on_error=self.failed)
        self.manager._actor_task_failed(tracked_actor_task=task, exception=error)


@pytest.mark.parametrize(
    "error",
    [OutOfMemoryError("5 workers were killed"), LocalRayletDiedError("gone"), NodeDiedError("gone")],
    ids=lambda error: type(error).__name__,
)
def test_tune_hears_of_every_death_as_of_one(error: RayError) -> None:
    with pytest.raises(RuntimeError, match="unexpected"):  # what is mended here; without it this module can go
        Fails().of(error)
    fails = Fails()
    outlive_deaths(SimpleNamespace(_actor_manager=fails.manager), fails.told)
    fails.of(error)
    fails.told.assert_called_once_with(error)
    told = fails.died.call_args.args[1]
    assert isinstance(told, RayActorError)
    assert str(error) in str(told)
    fails.failed.assert_called_once()  # by which Tune starts the trial again


@pytest.mark.parametrize("error", [A_TASK_FAILED, ActorUnavailableError("away", None)], ids=["task", "actor"])
def test_what_tune_knows_stays_as_it_is(error: RayError) -> None:
    fails = Fails()
    outlive_deaths(SimpleNamespace(_actor_manager=fails.manager), fails.told)
    fails.of(error)
    assert fails.failed.call_args.args[1] is error
    assert fails.died.called is isinstance(error, RayActorError)
    fails.told.assert_not_called()


def test_a_fault_of_our_own_still_ends_the_sweep() -> None:
    fails = Fails()
    outlive_deaths(SimpleNamespace(_actor_manager=fails.manager), fails.told)
    with pytest.raises(RuntimeError, match="unexpected"):
        fails.of(KeyError("x"))


def test_a_tune_without_that_manager_is_left_alone() -> None:
    outlive_deaths(SimpleNamespace(), MagicMock())


def test_the_user_hears_of_memory_that_ran_out_once_in_a_while() -> None:
    observer = MagicMock()
    recording = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda count: None)
    recording.process_died(NodeDiedError("gone"))  # of nodes the user is told otherwise
    observer.notice.assert_not_called()
    for _ in range(5):
        recording.process_died(OutOfMemoryError("5 workers were killed"))
    observer.notice.assert_called_once_with(recorder.OUT_OF_MEMORY)


class Pool:
    """Answers each question with the next of what a test gives."""

    def __init__(self) -> None:
        self.ready = self.status = SimpleNamespace(remote=lambda: "asked")


def test_a_pool_that_died_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [OutOfMemoryError("killed"), ["a", "b"]]

    def get(asked: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(recorder, "_is_there", lambda answer: True)
    observer = MagicMock()
    recording = Recorder("sweep", MagicMock(), observer, Pool(), lambda: None, lambda: None, lambda count: None)
    recording._watch._next_look = float("inf")  # only the names are asked for
    recording.on_step_begin(0, [])
    observer.engines_ready.assert_not_called()
    recording.on_step_begin(1, [])
    observer.engines_ready.assert_called_once_with(["a", "b"])
    assert recording.error is None


def test_what_the_pool_itself_raised_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(asked: object) -> Any:
        raise A_TASK_FAILED

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(recorder, "_is_there", lambda answer: True)
    recording = Recorder("sweep", MagicMock(), MagicMock(), Pool(), lambda: None, lambda: None, lambda count: None)
    with pytest.raises(RayTaskError):
        recording.on_step_begin(0, [])
    assert recording.error is A_TASK_FAILED
