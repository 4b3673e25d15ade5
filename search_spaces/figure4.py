"""Figure 4 of Houlsby et al. 2019: validation accuracy against trained parameters on MNLI and CoLA, BERT-base.

828 trials: 2 tasks x (adapter 10 sizes + top_layers 12 depths + layernorm 1) x 3 learning rates x 2 numbers of epochs
x 3 seeds.

Each point of the figure takes its best learning rate from the range of section 3.2; the number of epochs is not
restated there, so both of that section are tried. Error bars are one standard error over three seeds. The figure's
vertical axis is accuracy for CoLA too, where adaptune selects by the Matthews correlation, GLUE's own metric.
"""

from orchestrator.spec import Grid, MethodSpec, SweepSpec

# What the released code reads; it is also what BERT was trained to be read by.
_READ = {"pooling": "pooler"}

SWEEP = SweepSpec(
    name="figure4",
    backbone="google-bert/bert-base-uncased",
    tasks=("glue/mnli", "glue/cola"),
    seeds=(0, 1, 2),
    space={
        "learning_rate": Grid([3e-5, 3e-4, 3e-3]),
        "num_epochs": Grid([3, 20]),
        "batch_size": 32,
        "max_length": 128,
    },
    methods=(
        MethodSpec(method="adapter", space={**_READ, "adapter_size": Grid([2**power for power in range(10)])}),
        MethodSpec(method="top_layers", space={**_READ, "num_layers": Grid(list(range(1, 13)))}),
        MethodSpec(method="layernorm", space=_READ),
    ),
)
