"""How engines and trials are laid out over what a cluster has."""

from __future__ import annotations

import pytest

from orchestrator.scheduling.engine_layout import (
    ENGINES_PER_GPU,
    EngineLayout,
    devices_paid,
    engines_per_gpu,
    filling_trials,
    lay_out,
)
from trainables.faults import FaultsError


@pytest.mark.parametrize(
    ("resources", "threads", "layout"),
    [
        ({"CPU": 2.0}, None, EngineLayout(count=2, num_gpus=0, num_threads=1)),
        ({"CPU": 8.0}, 4, EngineLayout(count=2, num_gpus=0, num_threads=4)),
        ({"CPU": 2.0}, 16, EngineLayout(count=1, num_gpus=0, num_threads=2)),
        ({"CPU": 16.0, "GPU": 4.0}, None, EngineLayout(count=4, num_gpus=1, num_threads=4)),
        ({"CPU": 2.0, "GPU": 4.0}, None, EngineLayout(count=4, num_gpus=1, num_threads=1)),
        ({"CPU": 0.0, "GPU": 0.0}, None, EngineLayout(count=0, num_gpus=0, num_threads=1)),
        ({}, None, EngineLayout(count=1, num_gpus=0, num_threads=1)),
    ],
)
def test_engines_are_laid_out_over_what_there_is(
    resources: dict[str, float], threads: int | None, layout: EngineLayout
) -> None:
    assert lay_out(resources, threads_per_engine=threads) == layout


@pytest.mark.parametrize(
    ("engines", "gpus", "planned", "asked", "expected"),
    [
        (2, 0, 100, None, 8),
        (1, 1, 100, None, 32),
        (2, 1, 100, None, 64),
        (3, 1, 100, None, 64),
        (8, 1, 1000, None, 128),
        (0, 0, 100, None, 1),
        (2, 1, 5, None, 5),
        (32, 0, 1000, None, 64),
        (96, 0, 1000, None, 96),
        (2, 0, 100, 3, 3),
        (2, 0, 100, 20, 20),
        (2, 0, 6, 20, 6),
    ],
)
def test_enough_trials_are_under_way_to_fill_packs_or_as_many_as_the_user_says(
    engines: int, gpus: int, planned: int, asked: int | None, expected: int
) -> None:
    assert EngineLayout(count=engines, num_gpus=gpus, num_threads=1).concurrent_trials(planned, asked) == expected


@pytest.mark.parametrize(
    ("engines", "gpus", "concurrent", "expected"),
    [
        (2, 0, 8, 4),
        (2, 0, 5, 3),
        (2, 0, 1, 1),
        (1, 0, 4, 4),
        (96, 0, 96, 1),
        (2, 1, 32, None),
        (8, 0.25, 128, None),
        (0, 0, 1, None),
    ],
)
def test_on_cpus_an_engine_is_lent_no_more_than_its_part(
    engines: int, gpus: float, concurrent: int, expected: int | None
) -> None:
    assert EngineLayout(count=engines, num_gpus=gpus, num_threads=1).most_each(concurrent) == expected


def test_engines_on_gpus_and_on_cpus_together_have_as_many_trials_as_fill_both() -> None:
    assert filling_trials(8, 2) == filling_trials(8, 0) + filling_trials(0, 2) == 136
    assert filling_trials(0, 0) == 0


def test_gpus_are_paid_where_there_are_any_and_cpu_engines_else() -> None:
    assert devices_paid(0, 3) == 3
    assert devices_paid(2, 3) == 2
    assert devices_paid(8, 3, engines_per_gpu=4) == 2


def test_several_engines_share_a_gpu_and_its_cores_where_they_are_asked_to() -> None:
    shared = lay_out({"CPU": 16.0, "GPU": 2.0}, engines_per_gpu=4)
    assert shared == EngineLayout(count=8, num_gpus=0.25, num_threads=2)
    assert shared.engines_per_gpu == 4
    assert lay_out({"CPU": 16.0}, engines_per_gpu=4).engines_per_gpu == 1


def test_how_many_share_a_gpu_is_asked_for_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINES_PER_GPU, raising=False)
    assert engines_per_gpu() == 1
    monkeypatch.setenv(ENGINES_PER_GPU, "3")
    assert engines_per_gpu() == 3


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "17", ""])
def test_what_is_no_number_of_engines_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv(ENGINES_PER_GPU, asked)
    with pytest.raises(FaultsError, match=r"must be a whole number from 1 to 16.*unset it"):
        engines_per_gpu()
