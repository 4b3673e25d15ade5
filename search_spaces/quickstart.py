"""The whole road in a few minutes: two generated tasks, a small encoder, three methods and the paper's baseline.

Needs no download beside the packages and finishes in about five minutes on two CPU cores. It shows the shape of the
answer (accuracy against trained parameters, selected on validation, reported on test), not a result about language.
90 trials: 2 tasks x (adapter 3 sizes x 2 learning rates + top_layers 3 depths x 2 + full_finetuning 2 + layernorm 1)
x 3 seeds.
"""

from orchestrator.space import Grid
from orchestrator.spec import MethodSpec, SweepSpec

SWEEP = SweepSpec(
    name="quickstart",
    backbone="minilm",
    tasks=("toy/acceptability", "toy/sentiment"),
    seeds=(0, 1, 2),
    space={"num_epochs": 3},
    methods=(
        MethodSpec(
            method="adapter",
            space={"adapter_size": Grid([2, 8, 64]), "learning_rate": Grid([1e-3, 3e-3])},
        ),
        MethodSpec(
            method="top_layers",
            space={"num_layers": Grid([1, 2, 6]), "learning_rate": Grid([1e-4, 3e-4])},
        ),
        MethodSpec(method="full_finetuning", space={"learning_rate": Grid([1e-4, 3e-4])}),
        MethodSpec(method="layernorm", space={"learning_rate": 1e-3}),
    ),
)
