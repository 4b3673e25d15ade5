"""The "no BERT" column of Table 2 of Houlsby et al. 2019: networks over words, searched automatically, on 17 tasks.

17,000 trials: 17 tasks x 1,000 configurations drawn at random x 1 seed, most of them pruned early.

The space is Table 5's, item by item; what stands for the paper's embedding modules (item 1) and optimizers is said in
`trainables/methods/no_bert/`. The wide tower's learning rate is searched as a multiple of the deep tower's. How long
a configuration trains (item 21, the number of samples) is left to successive halving: after 1, 3 and 9 epochs the best
third of a task goes on. The paper's search tried over ten thousand models a task on thirty machines for a week; as in
the paper the model that is best on the validation set is reported, a single one. On two cores a task takes minutes:

    adaptune run no_bert --set 'tasks=[additional/sms_spam]'

No backbone is read: the one named here decides nothing.
"""

from orchestrator.spec import Choice, MethodSpec, RandInt, SearchSpec, SweepSpec, Uniform

_ACTIVATIONS = Choice(["relu", "relu6", "leaky_relu", "swish", "sigmoid", "tanh"])
_YES_OR_NO = Choice([True, False])
_L2 = Choice([0.0, 1e-4, 1e-3, 1e-2])

SWEEP = SweepSpec(
    name="no_bert",
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
    seeds=(0,),
    space={"num_epochs": 9, "batch_size": 64, "max_length": 128, "weight_decay": 0.0},
    methods=(
        MethodSpec(
            method="no_bert",
            space={
                "embedding_dim": Choice([32, 64, 128]),  # 1
                "tune_embeddings": _YES_OR_NO,  # 2
                "lowercase": _YES_OR_NO,  # 3
                "strip_punctuation": _YES_OR_NO,  # 4
                "convolution": _YES_OR_NO,  # 5
                "conv_activation": _ACTIVATIONS,  # 6
                "conv_batch_norm": _YES_OR_NO,  # 7
                "max_ngram": Choice([2, 3]),  # 8
                "conv_dropout": Uniform(0.0, 0.4),  # 9
                "conv_filters": RandInt(50, 200),  # 10
                "conv_embedding_dropout": Uniform(0.0, 0.4),  # 11
                "hidden_layers": Choice([0, 1, 2, 3, 5]),  # 12
                "hidden_size": Choice([64, 128, 256]),  # 13
                "hidden_activation": _ACTIVATIONS,  # 14
                "hidden_norm": Choice(["none", "batch", "layer"]),  # 15
                "hidden_dropout": Choice([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]),  # 16
                "learning_rate": Choice([0.001, 0.005, 0.01, 0.05, 0.1, 0.5]),  # 17
                "deep_l2": _L2,  # 18
                "wide_rate": Choice([0.01, 0.1, 1.0, 10.0, 100.0]),  # 19
                "wide_l2": _L2,  # 20
            },
        ),
    ),
    search=SearchSpec(algorithm="random", num_samples=1000),
    early_stopping={"asha": {"grace_period": 1, "reduction_factor": 3}},
)
