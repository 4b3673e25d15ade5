"""Trained parameters, to the unit, as Houlsby et al. 2019 imply them for BERT-base and BERT-large."""

from __future__ import annotations

import pytest
import torch

from tests.factories import trial_config
from trainables.backbones import shape_of
from trainables.backbones.loading import PUBLISHED_CONFIGS, meta_encoder
from trainables.config import Scalar, TrialConfig
from trainables.estimate.preview import complete_options, preview_parameters, preview_task
from trainables.faults import FaultsError
from trainables.methods import get_method, parse_options
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.model import build_model

BASE, LARGE = (shape_of(PUBLISHED_CONFIGS[f"bert-{size}-uncased"]) for size in ("base", "large"))
SHAPES = {"base": BASE, "large": LARGE}

# size -> (whole model, embeddings, one layer, all layers, pooler, all LayerNorms)
COMPONENTS = {
    "base": (109_482_240, 23_837_184, 7_087_872, 85_054_464, 590_592, 38_400),
    "large": (335_141_888, 31_782_912, 12_596_224, 302_309_376, 1_049_600, 100_352),
}
# adapter size -> (adapters, + LayerNorms, + a head of two classes)
ADAPTERS = {
    "base": {
        1: (55_320, 93_720, 95_258),
        2: (92_208, 130_608, 132_146),
        4: (165_984, 204_384, 205_922),
        8: (313_536, 351_936, 353_474),
        16: (608_640, 647_040, 648_578),
        32: (1_198_848, 1_237_248, 1_238_786),
        64: (2_379_264, 2_417_664, 2_419_202),
        128: (4_740_096, 4_778_496, 4_780_034),
        256: (9_461_760, 9_500_160, 9_501_698),
        512: (18_905_088, 18_943_488, 18_945_026),
    },
    "large": {
        1: (147_504, 247_856, 249_906),
        2: (245_856, 346_208, 348_258),
        4: (442_560, 542_912, 544_962),
        8: (835_968, 936_320, 938_370),
        16: (1_622_784, 1_723_136, 1_725_186),
        32: (3_196_416, 3_296_768, 3_298_818),
        64: (6_343_680, 6_444_032, 6_446_082),
        128: (12_638_208, 12_738_560, 12_740_610),
        256: (25_227_264, 25_327_616, 25_329_666),
        512: (50_405_376, 50_505_728, 50_507_778),
    },
}
# top n -> (n layers, + pooler, + a head of two classes)
TOP_LAYERS = {
    "base": {
        1: (7_087_872, 7_678_464, 7_680_002),
        2: (14_175_744, 14_766_336, 14_767_874),
        3: (21_263_616, 21_854_208, 21_855_746),
        4: (28_351_488, 28_942_080, 28_943_618),
        5: (35_439_360, 36_029_952, 36_031_490),
        6: (42_527_232, 43_117_824, 43_119_362),
        7: (49_615_104, 50_205_696, 50_207_234),
        8: (56_702_976, 57_293_568, 57_295_106),
        9: (63_790_848, 64_381_440, 64_382_978),
        10: (70_878_720, 71_469_312, 71_470_850),
        11: (77_966_592, 78_557_184, 78_558_722),
        12: (85_054_464, 85_645_056, 85_646_594),
    },
    "large": {
        1: (12_596_224, 13_645_824, 13_647_874),
        2: (25_192_448, 26_242_048, 26_244_098),
        3: (37_788_672, 38_838_272, 38_840_322),
        5: (62_981_120, 64_030_720, 64_032_770),
        7: (88_173_568, 89_223_168, 89_225_218),
        9: (113_366_016, 114_415_616, 114_417_666),
        11: (138_558_464, 139_608_064, 139_610_114),
        12: (151_154_688, 152_204_288, 152_206_338),
        18: (226_732_032, 227_781_632, 227_783_682),
        24: (302_309_376, 303_358_976, 303_361_026),
    },
}
HEADS = {
    "base": {1: 769, 2: 1_538, 3: 2_307, 20: 15_380, 157: 120_733},
    "large": {1: 1_025, 2: 2_050, 3: 3_075, 20: 20_500, 157: 160_925},
}


def config(method: str, **options: Scalar) -> TrialConfig:
    return trial_config(method, method_options=options)


def closed_formula(trial: TrialConfig, shape: EncoderShape) -> int:
    return get_method(trial.method).trained_params(shape, parse_options(trial.method, trial.method_options))


def assert_counts(trial: TrialConfig, shape: EncoderShape, without_head: int, with_two_classes: int) -> None:
    """From the tensors and from the closed formula."""
    counts = preview_parameters(trial, shape, 2)
    assert counts.trained_without_head == without_head
    assert counts.trained == with_two_classes
    assert closed_formula(trial, shape) == without_head


@pytest.mark.parametrize("size", SHAPES)
class TestComponents:
    def test_the_whole_model_and_its_parts(self, size: str) -> None:
        shape = SHAPES[size]
        whole, embeddings, layer, layers, pooler, layernorms = COMPONENTS[size]
        encoder = meta_encoder(shape)
        assert sum(parameter.numel() for parameter in encoder.parameters()) == whole
        assert shape.embedding_params == embeddings
        assert shape.layer_params == layer
        assert shape.num_layers * shape.layer_params == layers
        assert shape.pooler_params == pooler
        assert shape.layernorm_params == layernorms

    @pytest.mark.parametrize("method", ["layernorm", "adapter", "top_layers", "full_finetuning"])
    def test_heads_of_any_number_of_classes(self, size: str, method: str) -> None:
        for num_labels, head in HEADS[size].items():
            counts = preview_parameters(config(method), SHAPES[size], num_labels)
            assert counts.trained - counts.trained_without_head == head

    def test_layernorms_alone(self, size: str) -> None:
        layernorms = COMPONENTS[size][-1]
        assert_counts(config("layernorm"), SHAPES[size], layernorms, layernorms + HEADS[size][2])
        with_three = preview_parameters(config("layernorm"), SHAPES[size], 3).trained
        assert with_three == {"base": 40_707, "large": 103_427}[size]

    def test_full_finetuning(self, size: str) -> None:
        whole = COMPONENTS[size][0]
        assert_counts(config("full_finetuning"), SHAPES[size], whole, whole + HEADS[size][2])

    @pytest.mark.parametrize("method", ["layernorm", "top_layers", "full_finetuning"])
    def test_a_method_that_adds_no_module_leaves_the_total_as_it_is(self, size: str, method: str) -> None:
        assert preview_parameters(config(method), SHAPES[size], 2).total == COMPONENTS[size][0] + HEADS[size][2]


@pytest.mark.parametrize(("size", "adapter_size"), [(size, m) for size, rows in ADAPTERS.items() for m in rows])
@pytest.mark.thinned(6)
def test_adapters(size: str, adapter_size: int) -> None:
    adapters, with_layernorms, with_head = ADAPTERS[size][adapter_size]
    trial = config("adapter", adapter_size=adapter_size)
    assert_counts(trial, SHAPES[size], with_layernorms, with_head)
    assert with_layernorms - SHAPES[size].layernorm_params == adapters
    assert preview_parameters(trial, SHAPES[size], 2).total == COMPONENTS[size][0] + adapters + HEADS[size][2]


@pytest.mark.parametrize(("size", "num_layers"), [(size, n) for size, rows in TOP_LAYERS.items() for n in rows])
def test_top_layers(size: str, num_layers: int) -> None:
    shape = SHAPES[size]
    layers, with_pooler, with_head = TOP_LAYERS[size][num_layers]
    assert num_layers * shape.layer_params == layers
    if num_layers == shape.num_layers:  # all layers: the embeddings too, which makes it full fine-tuning
        with_pooler, with_head = with_pooler + shape.embedding_params, with_head + shape.embedding_params
        assert with_pooler == COMPONENTS[size][0]
    assert_counts(config("top_layers", num_layers=num_layers), shape, with_pooler, with_head)


def test_top_layers_train_more_than_any_adapter_from_three_layers_on() -> None:
    largest = preview_parameters(config("adapter", adapter_size=512), BASE, 2).trained
    two, three = (preview_parameters(config("top_layers", num_layers=n), BASE, 2).trained for n in (2, 3))
    assert two < largest < three


# method, options -> trained parameters without the head: published, or written out beside it
OTHERS: list[tuple[str, dict[str, Scalar], dict[str, int]]] = [
    ("pals", {}, {"base": 1_819_836}),  # Stickland and Murray's 1.66 %
    ("lora", {"rank": 8}, {"base": 294_912, "large": 786_432}),  # 2 L 2 D r
    ("lora", {"rank": 1, "targets": "up,down"}, {"base": 12 * 2 * (768 + 3072)}),
    ("bitfit", {}, {"base": 102_912, "large": 24 * (7 * 1024 + 4096) + 2 * 1024}),
    # adapter-hub's par_bn, reduction factor 2, and seq_bn, reduction factor 16
    ("adapter", {"placement": "parallel", "adapter_size": 384, "train_layernorms": False}, {"base": 7_091_712}),
    ("adapter", {"placement": "pfeiffer", "adapter_size": 48, "train_layernorms": False}, {"base": 894_528}),
    ("adapter", {"placement": "attention_only", "train_layernorms": False}, {"base": 2_379_264 // 2}),
    ("adapter", {"depth": 2, "train_layernorms": False}, {"base": 2_379_264 + 24 * (64 * 64 + 64)}),
    ("adapter", {"norm": "layer", "train_layernorms": False}, {"base": 2_379_264 + 24 * 2 * 64}),
    ("adapter", {"layers": "0-3"}, {"base": 2_379_264 // 3 + 38_400}),
    ("adapterdrop", {"num_dropped": 5}, {"base": 7 * (198_272 + 4 * 768)}),
    ("feature_based", {}, {"base": 0, "large": 0}),
]


@pytest.mark.parametrize(("method", "options", "counts"), OTHERS)
def test_other_methods_train_what_their_authors_count(
    method: str, options: dict[str, Scalar], counts: dict[str, int]
) -> None:
    for size, count in counts.items():
        head = HEADS[size][2]
        assert_counts(config(method, **options), SHAPES[size], count, count + head)


def test_a_fusion_trains_as_much_whatever_it_fuses() -> None:
    assert closed_formula(config("adapter_fusion"), BASE) == 21_252_096


def test_a_hidden_layer_of_the_head_counts_as_head() -> None:
    counts = preview_parameters(config("feature_based", head_hidden_size=100), BASE, 3)
    assert (counts.trained, counts.trained_without_head) == (100 * 769 + 3 * 101, 0)


@pytest.mark.parametrize(("size", "tensors"), [("base", 148), ("large", 292)])
def test_adapters_train_as_many_tensors_as_the_released_code(size: str, tensors: int) -> None:
    model = build_model(meta_encoder(SHAPES[size]), [config("adapter")], 2)
    assert sum(parameter.requires_grad for parameter in model.parameters()) == tensors


def test_the_paper_s_percentages_are_of_the_encoder_s_layers() -> None:
    layers = COMPONENTS["large"][3]

    def percent(adapter_size: int) -> float:
        return 100 * closed_formula(config("adapter", adapter_size=adapter_size), LARGE) / layers

    assert round(percent(64), 1) == 2.1
    assert round(100 * ADAPTERS["large"][64][0] / layers, 1) == 2.1  # also without LayerNorms
    assert round(sum(percent(size) for size in (8, 64, 256)) / 3, 1) == 3.6


def test_counting_takes_no_memory_for_weights_and_leaves_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    encoder = meta_encoder(LARGE)
    model = build_model(encoder, [config("full_finetuning")], 2)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_options_are_completed_with_defaults_and_checked_against_the_backbone() -> None:
    completed = complete_options("adapter", {"adapter_size": 8}, BASE)
    assert (completed["adapter_size"], completed["init_std"], completed["placement"]) == (8, 1e-2, "houlsby")
    assert complete_options("adapter", {"adapter_size": 1000}, None)["adapter_size"] == 1000
    with pytest.raises(FaultsError, match=r"must be in \[1, 768\]"):
        complete_options("adapter", {"adapter_size": 1000}, BASE)


def test_a_task_is_described_with_its_fingerprint_and_rows() -> None:
    preview = preview_task("toy/sentiment")
    assert preview.info.name == "toy/sentiment"
    assert preview.missing == ()
    assert preview.fingerprint is not None
    assert preview.train_rows is not None
    assert preview.train_rows > 100


def test_a_task_whose_data_are_out_of_reach_is_described_all_the_same(hub_cache: object) -> None:
    preview = preview_task("glue/mnli")
    assert (preview.info.num_labels, preview.fingerprint, preview.train_rows) == (3, None, None)
    assert preview.missing
