"""What can be had for what it costs: the configurations of a task that no other one beats in score and cost at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.analysis.configurations import Configuration, contenders, higher_is_better
from orchestrator.analysis.questions.inference_cost import INFERENCE_COSTS, unmeasured
from orchestrator.analysis.statistics.pareto import pareto_front
from orchestrator.analysis.text import wording
from trainables.faults import FaultsError

# What a configuration may cost, as `Results.pareto` takes it, and where a Configuration has it.
COSTS = {
    "trained_params": "trained_params",
    "trained_params_without_head": "trained_params_without_head",
    "total_params": "total_params",
    "engine_seconds": "seconds_per_trial",
    "peak_memory_bytes": "peak_memory_bytes",
}


Price = Callable[[Configuration], float | None]  # None where it is not known


def recorded_price(cost: str) -> Price:
    """What configurations cost by their records; `cost` is one of `COSTS`."""
    field = COSTS[cost]
    return lambda configuration: getattr(configuration, field)


def without_price(question: str, cost: str, *, priced: int, unpriced: int) -> list[str]:
    """What an answer says of the configurations whose cost is not known, a sentence or none.

    Raises `FaultsError` where it is known of none of them.
    """
    if not unpriced:
        return []
    if not priced:
        rule = f"{cost}: must have been recorded, but no completed trial has it; ask for another cost"
        raise FaultsError(question, [unmeasured(cost) if cost in INFERENCE_COSTS else rule])
    verb = "is not measured; `adaptune measure STORE` does" if cost in INFERENCE_COSTS else "is not recorded"
    return [f"{cost} of {wording.plural(unpriced, 'configuration')}, which {verb}"]


def front(group: Sequence[Configuration], price: Price) -> list[tuple[Configuration, float]]:
    """The Pareto front of a group on one task, by mean validation score, the cheapest first, each with its cost.

    Among the contenders whose cost is known; of several with the same cost and score, the one of the smallest config_id
    stands for all.
    """
    scored = [
        (c, float(value), c.validation.mean)
        for c in contenders(group)
        if c.validation is not None and (value := price(c)) is not None
    ]
    if not scored:
        return []
    costs = np.array([price for _, price, _ in scored])
    sign = 1.0 if higher_is_better(scored[0][0].metric) else -1.0
    on_front = pareto_front(costs, sign * np.array([score for _, _, score in scored]))
    found: dict[float, Configuration] = {}
    for index in np.flatnonzero(on_front):
        configuration, value, _ = scored[index]
        if value not in found or configuration.config_id < found[value].config_id:
            found[value] = configuration
    return [(found[value], value) for value in sorted(found)]
