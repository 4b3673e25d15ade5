"""What was asked: a sweep, the spaces it searches, its rule of early stopping, and the files it is read from."""

from orchestrator.spec.early_stopping import Asha, Hyperband, Median, Patience
from orchestrator.spec.space import Choice, Grid, LogUniform, RandInt, Uniform
from orchestrator.spec.spec import MethodSpec, NonInferioritySpec, SearchSpec, SweepSpec, SweepSpecError

__all__ = [
    "Asha",
    "Choice",
    "Grid",
    "Hyperband",
    "LogUniform",
    "Median",
    "MethodSpec",
    "NonInferioritySpec",
    "Patience",
    "RandInt",
    "SearchSpec",
    "SweepSpec",
    "SweepSpecError",
    "Uniform",
]
