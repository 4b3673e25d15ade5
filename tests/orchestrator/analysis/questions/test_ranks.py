from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from orchestrator.analysis.missing import missing_of
from orchestrator.analysis.questions.ranks import friedman_p, rank_rows
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_scipys(seed: int) -> None:
    means = np.random.default_rng(seed).integers(0, 6, (7, 5)) / 10
    assert rank_rows(means) == pytest.approx(scipy.stats.rankdata(-means, axis=1))
    assert friedman_p(means) == pytest.approx(scipy.stats.friedmanchisquare(*means.T).pvalue)


def test_methods_that_the_tasks_tell_apart_are_not_joined() -> None:
    results = large_results(large_rows(TASKS, ("full_finetuning", "layernorm", "linear_probe")))
    rows = results.ranks().to_pylist()
    assert [(row["method"], row["mean_rank"]) for row in rows] == [
        ("full_finetuning", 1.0),
        ("layernorm", 2.0),
        ("linear_probe", 3.0),
    ]
    assert all(row["not_told_apart_from"] == [] for row in rows)


def test_with_few_tasks_nothing_is_told_apart_and_it_says_how_many_it_takes() -> None:
    table = large_results(large_rows(TASKS[:3], ("full_finetuning", "layernorm", "linear_probe"))).ranks()
    assert all(len(row["not_told_apart_from"]) == 2 for row in table.to_pylist())
    # three pairs: 3 * 2^(1 - n) <= 0.05 from n = 7 on
    assert any("fewer than 7 no two of 3 methods" in note for note in missing_of(table))


def test_one_method_has_no_rank() -> None:
    table = large_results(large_rows(TASKS[:2], ("adapter",))).ranks()
    assert len(table) == 0
    assert "a second method to compare with" in missing_of(table)


def test_equal_scores_tie_in_whatever_order_the_seeds_have_them(synthetic: Any) -> None:
    rows = [
        *synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, [0.1, 0.2, 0.3], test_score=None),
        *synthetic.scored({"method": "full_finetuning", "learning_rate": 1e-4}, [0.3, 0.2, 0.1], test_score=None),
    ]
    found = synthetic.results(rows).ranks().to_pylist()
    assert [row["mean_rank"] for row in found] == [1.5, 1.5]
