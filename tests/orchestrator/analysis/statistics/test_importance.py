from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.statistics.importance import importance, spans_a_decade

RNG = np.random.default_rng(0)
RATES = (10 ** RNG.uniform(-5, -2, 40)).tolist()
SIZES = RNG.choice([2, 8, 64], 40).tolist()
PLACES = RNG.choice(["houlsby", "pfeiffer"], 40).tolist()
SCORES = np.array([0.9 - 0.02 * (np.log10(RATES) + 3) ** 2 + 0.001 * np.array(SIZES) / 64] * 3)
SCORES = SCORES + RNG.normal(0, 0.001, SCORES.shape)
SPACE = {"placement": PLACES, "learning_rate": RATES, "adapter_size": SIZES, "batch_size": [32] * 40}


def test_what_the_score_depends_on_comes_first_with_its_spread_over_seeds() -> None:
    found = importance(SPACE, SCORES, num_trees=16)
    assert found[0].name == "learning_rate"
    assert {each.name for each in found} == {"learning_rate", "adapter_size", "placement"}  # of what varies
    assert found[0].mean > 0.8
    assert sum(each.mean for each in found) == pytest.approx(1)
    assert found[0].mean == pytest.approx(np.mean(found[0].by_seed))
    assert found[0].spread == pytest.approx(np.std(found[0].by_seed, ddof=1))
    assert importance(SPACE, SCORES, num_trees=16) == found


def test_a_single_hyperparameter_explains_all_and_a_single_seed_has_no_spread() -> None:
    [only] = importance({"learning_rate": RATES}, SCORES[:1])
    assert (only.mean, only.spread) == (1.0, None)


def test_equal_scores_are_explained_by_nothing_in_particular() -> None:
    found = importance({"learning_rate": RATES, "placement": [None, *PLACES[1:]]}, np.full((2, 40), 0.5))
    assert [each.mean for each in found] == [0.5, 0.5]


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match="at least four configurations"):
        importance({"learning_rate": RATES[:3]}, SCORES[:, :3])
    with pytest.raises(ValueError, match="a hyperparameter that varies"):
        importance({"batch_size": [32] * 40}, SCORES)
    with pytest.raises(ValueError, match="each must have 40 entries"):
        importance({"learning_rate": RATES[:7]}, SCORES)


def test_a_factor_of_ten_is_one_whatever_its_last_digit() -> None:
    assert all(spans_a_decade([float(f"{digit}e-5"), float(f"{digit}e-4")]) for digit in range(1, 100))
    assert not spans_a_decade([3e-5, 2.9e-4])
    assert not spans_a_decade([0.0, 1.0])
