"""The seventeen additional tasks of Houlsby et al. 2019, section 3.3 and Table 2: three ways to transfer BERT-base.

9,180 trials: 17 tasks x (adapter 6 sizes + top_layers 8 depths + full_finetuning 1) x 4 learning rates x 3 numbers of
epochs x 3 seeds.

The learning rates are as printed, the gap between 1e-4 and 3e-3 included. The paper picks the number of epochs by hand
for each task and method from validation curves (Table 4: 20, 50 or 100); here it is searched like the rest. It
reports, as adaptune does, the configuration with the best validation accuracy by its mean test accuracy and standard
error over seeds; how many seeds stand behind Table 2 is not stated, Figures 4, 5 and 7 have three. `num_layers=12`
trains every layer and the embeddings, hence the same weights as full_finetuning; Table 2 has both columns.

The tasks are task folders of these names in the folder that ADAPTUNE_DATA names. The paper publishes no files; it
splits each set itself, 80 % / 10 % / 10 % (Table 3).
"""

from orchestrator.spec import Grid, MethodSpec, SweepSpec

# What the released code reads; it is also what BERT was trained to be read by.
_READ = {"pooling": "pooler"}

SWEEP = SweepSpec(
    name="houlsby_additional",
    backbone="google-bert/bert-base-uncased",
    tasks=(
        "additional/twenty_newsgroups",
        "additional/crowdflower_airline",
        "additional/crowdflower_corporate_messaging",
        "additional/crowdflower_disasters",
        "additional/crowdflower_economic_news_relevance",
        "additional/crowdflower_emotion",
        "additional/crowdflower_global_warming",
        "additional/crowdflower_political_audience",
        "additional/crowdflower_political_bias",
        "additional/crowdflower_political_message",
        "additional/crowdflower_primary_emotions",
        "additional/crowdflower_progressive_opinion",
        "additional/crowdflower_progressive_stance",
        "additional/crowdflower_us_economic_performance",
        "additional/customer_complaints",
        "additional/news_aggregator",
        "additional/sms_spam",
    ),
    seeds=(0, 1, 2),
    space={
        "learning_rate": Grid([1e-5, 3e-5, 1e-4, 3e-3]),
        "num_epochs": Grid([20, 50, 100]),
        "batch_size": 32,
        "max_length": 128,
    },
    methods=(
        MethodSpec(method="adapter", space={**_READ, "adapter_size": Grid([2, 4, 8, 16, 32, 64])}),
        MethodSpec(method="top_layers", space={**_READ, "num_layers": Grid([1, 2, 3, 5, 7, 9, 11, 12])}),
        MethodSpec(method="full_finetuning", space=_READ),
    ),
)
