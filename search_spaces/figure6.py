"""Figure 6 (right) of Houlsby et al. 2019: validation accuracy against the adapters' initial scale, MNLI and CoLA.

288 trials: 2 tasks x 8 standard deviations x 3 learning rates x 2 numbers of epochs x 3 seeds.

Adapters of size 64 in BERT-base, initialised from a normal distribution truncated at two of its standard deviations,
which goes from 1e-7 to 1 by powers of ten. The paper finds accuracy flat up to 1e-2 and falling above it, on CoLA
more than on MNLI. How it chose learning rate and epochs for this figure is not stated, so both are searched as in
figure4, which has the trials at 1e-2 too. The vertical axis is accuracy for CoLA as well, where adaptune selects by
the Matthews correlation, GLUE's own metric.

Its other half, the ablation of trained adapters, needs no sweep of its own: `adaptune ablate` makes it of any trial.
"""

from orchestrator.spec import Grid, MethodSpec, SweepSpec

# What the released code reads; it is also what BERT was trained to be read by.
_READ = {"pooling": "pooler"}

SWEEP = SweepSpec(
    name="figure6",
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
        MethodSpec(
            method="adapter",
            space={**_READ, "adapter_size": 64, "init_std": Grid([1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])},
        ),
    ),
)
