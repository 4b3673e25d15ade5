"""The whole road in a few minutes: two generated tasks, a small encoder, three methods and the paper's baseline.

Needs no download beside the packages and finishes in a few minutes on two CPU cores. It shows the shape of the answer
(accuracy against trained parameters, selected on validation, reported on test), not a result about language.
28 trials: 2 tasks x (adapter 3 sizes + top_layers 2 depths + full_finetuning 1 + layernorm 1) x 2 seeds.

Adapters need larger steps than full fine-tuning, which the learning rates follow. The generated task `acceptability` is
left out: in three epochs over its 1,200 rows adapters end anywhere, so that two seeds of one setting say little.
"""

from orchestrator.spec import Grid, MethodSpec, SweepSpec

SWEEP = SweepSpec(
    name="quickstart",
    backbone="minilm",
    tasks=("toy/intent", "toy/sentiment"),
    seeds=(0, 1),
    space={"num_epochs": 3, "batch_size": 16},
    methods=(
        MethodSpec(method="adapter", space={"adapter_size": Grid([2, 8, 64]), "learning_rate": 3e-3}),
        MethodSpec(method="top_layers", space={"num_layers": Grid([1, 3]), "learning_rate": 3e-4}),
        MethodSpec(method="full_finetuning", space={"learning_rate": 1e-4}),
        MethodSpec(method="layernorm", space={"learning_rate": 3e-3}),
    ),
)
