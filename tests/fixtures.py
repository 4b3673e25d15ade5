"""What several rooms' tests need: tiny checkpoints, small tasks, a hub without network."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import settings

from tests import ray_guard, thinning
from trainables import metrics, tasks
from trainables.backbones.loading import Backbone, load_backbone
from trainables.config import Scalar, TrialConfig
from trainables.data.tokenized import TokenizedSplit, tokenize
from trainables.inference.saved_adapter import save
from trainables.methods import parse_options
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.kernels import native
from trainables.task import TaskInfo
from trainables.training.loss import TrainingDivergedError
from trainables.training.model import AdaptedModel, build_model
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

gc.disable()  # until everything is imported and collected, none of which is garbage
# A machine that does other things too is no fault of a test's; and tests that want more examples say so. Every day the
# same examples are drawn, so that a change which passed does not fail elsewhere; `make draws` looks for new ones.
settings.register_profile(
    "adaptune", deadline=None, max_examples=40, derandomize="ADAPTUNE_NEW_DRAWS" not in os.environ
)
settings.load_profile("adaptune")

AddDataset = Callable[[str, str, str, Mapping[str, pa.Table], Sequence[str]], Path]
SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
_LAYER_TYPES = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2}
_DEBERTA_V3 = {
    "position_biased_input": False, "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8,
    "max_relative_positions": -1, "type_vocab_size": 0,
}  # fmt: skip
# What some checkpoints of a model_type say beyond SIZES: the variant's name, its model_type and its configuration.
CHECKPOINT_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-one-type": ("roberta", {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "electra-small": ("electra", {"embedding_size": 8}),
    "deberta-v2": ("deberta-v2", _DEBERTA),
    "deberta-v3": ("deberta-v2", {**_DEBERTA, **_DEBERTA_V3}),
    "ernie-with-tasks": ("ernie", {"use_task_id": True, "task_type_vocab_size": 3}),
    "albert": ("albert", {"embedding_size": 8}),
    "albert-groups": ("albert", {"num_hidden_layers": 3, "num_hidden_groups": 2}),
    "modernbert": ("modernbert", {"local_attention": 8, "pad_token_id": 0, "layer_types": _LAYER_TYPES[:2]}),
    "modernbert-biased": ("modernbert", {
        "local_attention": 10, "pad_token_id": 0, "num_hidden_layers": 4, "layer_types": _LAYER_TYPES,
        "attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_pooling": "mean",
    }),
}  # fmt: skip
WORDS = ["good", "bad", *(f"w{number}" for number in range(20))]

MakeCheckpoint = Callable[[str], Path]
MakeTask = Callable[..., Path]
Splits = Mapping[str, TokenizedSplit]
MakeSplits = Callable[..., Splits]
Join = Callable[..., Pack]
Fit = Callable[..., tuple[RunningTrial, AdaptedModel]]
SmallOptions = Callable[[str, Encoder], dict[str, Scalar]]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Refuses Ray to a test that is marked neither `ray` nor `chaos`, its fixtures of every scope included."""
    if any(item.iter_markers("ray")) or any(item.iter_markers("chaos")):
        return (yield)
    os.environ[ray_guard.VARIABLE] = ray_guard.REFUSAL
    try:
        return (yield)
    finally:
        del os.environ[ray_guard.VARIABLE]


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what is not for every day; without an accelerator what needs one is deselected, and counted as that."""
    thinning.mark(items)
    if torch.cuda.is_available():
        return
    without = [item for item in items if item.get_closest_marker("gpu")]
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


def pytest_collection_finish() -> None:
    """Takes what is imported and collected, and stays, out of every later search for garbage: most of its time."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(100_000)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: tiny products gain nothing from more, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def kernels() -> None:
    """Compiles them, or finds them compiled, in the user's cache, before a test names an empty cache of its own."""
    native.library()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """The folder of a random checkpoint with a WordPiece tokenizer, by model_type; written once. Not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")

    def make(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            folder.mkdir()
            _write_weights(family, folder)
            write_tokenizer(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_bert(checkpoint: MakeCheckpoint) -> Path:
    """The folder of a random BERT: 2 layers, width 16, with a pooler."""
    return checkpoint("bert")


@pytest.fixture(scope="session")
def backbone(tiny_bert: Path) -> Backbone:
    """The random BERT, loaded in float32. Frozen: no test may change it."""
    return load_backbone(str(tiny_bert), device=torch.device("cpu"), compute_dtype=torch.float32)


@pytest.fixture(scope="session")
def small_options(tmp_path_factory: pytest.TempPathFactory) -> SmallOptions:
    """Options of a method that suit a small encoder; of `adapter_fusion` also adapters for that encoder, to fuse."""
    stages: dict[Encoder, Path] = {}

    def options(method: str, encoder: Encoder) -> dict[str, Scalar]:
        if method != "adapter_fusion":
            return smaller_options(method, encoder.shape)
        if encoder not in stages:
            stages[encoder] = tmp_path_factory.mktemp("stage-one")
            _write_stage_one(stages[encoder], encoder)
        return {"adapters": str(stages[encoder])}

    return options


@pytest.fixture
def task_folder(tmp_path: Path) -> MakeTask:
    """Writes a task folder whose label is whether "good" or "bad" is said; for regression, how often "good" is."""
    return functools.partial(write_task_folder, tmp_path)


@pytest.fixture
def splits(task_folder: MakeTask, backbone: Backbone, tmp_path: Path) -> MakeSplits:
    """Writes a task folder and tokenises it."""

    def make(**task: Any) -> Splits:
        folder = task_folder(**task)
        return tokenize(tasks.load(str(folder)), backbone.tokenizer, "tiny", 16, tmp_path)

    return make


@pytest.fixture
def join(backbone: Backbone) -> Join:
    """Makes a pack of trials that have not taken a step."""

    def make(splits: Splits, *trials: TrialConfig, metric: str = "accuracy") -> Pack:
        pack = Pack(backbone.encoder, splits, 1 if metric == "pearson" else 2)
        jobs = [Job(config=trial, done=lambda outcome: None) for trial in trials]
        pack.join([RunningTrial(job, len(splits["train"])) for job in jobs])
        return pack

    return make


@pytest.fixture
def fit(join: Join) -> Fit:
    """Trains a trial to its last epoch, step by step; gives it and the model with what it has learned."""

    def run(splits: Splits, trial: TrialConfig, *, metric: str = "accuracy") -> tuple[RunningTrial, AdaptedModel]:
        pack = join(splits, trial, metric=metric)
        running = pack.trials[0]
        while running.step < len(running.batches):
            pack.step()
            for _, reason in pack.diverged():
                raise TrainingDivergedError(reason)
            while running.has_ended_epoch:
                (report,) = pack.end_epochs([running], metrics.get(metric))
                if isinstance(report, TrainingDivergedError):
                    raise report
        return running, pack.show(running, masters=True)

    return run


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tokenised rows of this test are kept, also by processes it starts."""
    monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddDataset]:
    """A machine without network whose caches of the Hugging Face hub are empty.

    The returned function (dataset, revision, config, splits, label names) puts a dataset into the hub's cache the way
    `hf download` leaves it there, and gives back its folder.
    """
    import datasets
    import huggingface_hub

    from trainables.tasks import glue, hub

    def forget() -> None:  # what one test's cache held is not what another's holds
        glue.load.cache_clear()
        hub.load.cache_clear()

    forget()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    datasets.disable_progress_bars()

    def add(dataset: str, revision: str, config: str, splits: Mapping[str, pa.Table], names: Sequence[str]) -> Path:
        cached = f"datasets--{dataset.replace('/', '--')}"
        folder = tmp_path / "hf" / "hub" / cached / "snapshots" / revision
        (folder / config).mkdir(parents=True)
        card = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
        for split, table in splits.items():
            pa.parquet.write_table(table, folder / config / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        card += ["dataset_info:", f"- config_name: {config}", "  features:"]
        for field in next(iter(splits.values())).schema:
            card += [f"  - name: {field.name}"]
            if field.name == "label" and names:
                card += ["    dtype:", "      class_label:", "        names:"]
                card += [f"          '{index}': '{name}'" for index, name in enumerate(names)]
            else:
                card += [f"    dtype: {'float64' if field.type == pa.float64() else field.type}"]
        (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
        return folder

    yield add
    forget()


def write_task_folder(
    root: Path, name: str = "opinion", *, rows: int = 64, kind: str = "classification",
    splits: str = "train validation test",
) -> Path:  # fmt: skip
    """What `task_folder` writes, below a root."""
    folder = root / name
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in splits.split():
        lines = []
        for row in range(rows if split == "train" else 32):
            words = [f"w{number}" for number in rng.integers(0, 6, size=rng.integers(1, 5))]
            label: float = row % 2
            opinions = ["bad", "good"][row % 2 : row % 2 + 1]
            if kind == "regression":
                count = row % 5
                label, opinions = count / 4, ["good"] * count + ["bad"] * (4 - count)
            text = " ".join(str(word) for word in rng.permutation([*words, *opinions]))
            lines.append(json.dumps({"text_a": text, "label": label}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    metric = {"metric": "pearson"} if kind == "regression" else {}
    (folder / "task.json").write_text(json.dumps({"kind": kind, **metric}), encoding="utf-8")
    return folder


def smaller_options(method: str, shape: EncoderShape) -> dict[str, Scalar]:
    """A method's options at their defaults, but for whole numbers that are too large: those become 4, 2 or 1.

    They suit an encoder as wide as this one with two layers, and so with more. What starts at random starts far enough
    from zero to be seen.
    """
    return dict(_smaller_options(method, shape))


@functools.cache
def _smaller_options(method: str, shape: EncoderShape) -> Mapping[str, Scalar]:
    shape = dataclasses.replace(shape, num_layers=2)
    defaults = dataclasses.asdict(parse_options(method, {}))
    numbers = {name: value for name, value in defaults.items() if type(value) is int}
    choices = [[value, *(smaller for smaller in (4, 2, 1) if smaller < value)] for value in numbers.values()]
    for chosen in itertools.islice(itertools.product(*choices), 10_000):
        options = dict(zip(numbers, chosen, strict=True))
        if not (faults := parse_options(method, options).faults(shape)):
            changed = {name: value for name, value in options.items() if value != numbers[name]}
            return changed | ({"init_std": 0.1} if "init_std" in defaults else {})
    raise AssertionError(f"method {method}: no smaller whole numbers suit {shape}: {faults}")


def _write_stage_one(root: Path, encoder: Encoder) -> None:
    """Adapters as they are at the start, for two tasks."""
    options = {**smaller_options("adapter", encoder.shape), "placement": "pfeiffer", "train_layernorms": False}
    for seed, name in enumerate(("first", "second")):
        info = TaskInfo(
            name=name, kind="classification", pair=False, num_labels=2, label_names=(), metric="accuracy", source="any"
        )
        trial = TrialConfig(task=name, backbone="any", method="adapter", method_options=options, seed=seed)
        scores = {"validation/accuracy": 0.5}
        model = build_model(encoder, [trial], 2)
        save(root / name, model, trial, info, backbone_fingerprint=str(encoder.fingerprint), scores=scores)


def _write_weights(family: str, folder: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel

    model_type, extra = CHECKPOINT_VARIANTS.get(family, (family, {}))
    config = AutoConfig.for_model(model_type)
    sizes = {**SIZES, "hidden_dim": SIZES["intermediate_size"], "embedding_size": 16, "head_dim": 8}
    for name, value in {**sizes, **extra}.items():
        if name in extra or hasattr(
            config, name
        ):  # a configuration has its own names for some, and knows most of them by these too
            setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        for parameter in model.parameters():  # LayerNorms and biases too, so that none can be taken for another
            torch.nn.init.normal_(parameter, 1.0 if parameter.mean() == 1 else 0.0, 0.3)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """Write a small WordPiece tokenizer as a checkpoint has it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
