"""What a sweep will cost: time, memory and money of the trials that are left. Loads neither Ray nor torch to say so."""

from orchestrator.estimate.money import cost_of
from orchestrator.estimate.plan_estimate import PlanEstimate, estimate_plan
from orchestrator.estimate.sweep_estimate import SweepEstimate, estimate_sweep

__all__ = ["PlanEstimate", "SweepEstimate", "cost_of", "estimate_plan", "estimate_sweep"]
