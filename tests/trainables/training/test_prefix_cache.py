"""Hidden states above frozen layers, computed once: a training that uses them is the training without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import metrics
from trainables.backbones.loading import Backbone, load_backbone
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.nn.encoder import Encoder
from trainables.nn.pieces import Pieces
from trainables.training import prefix_cache as prefix
from trainables.training.evaluation import to_device
from trainables.training.pack import Pack
from trainables.training.prefix_cache import PrefixCache
from trainables.training.running_trial import Job, RunningTrial

CPU = torch.device("cpu")
MakeSplits = Callable[..., Mapping[str, TokenizedSplit]]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows a chunk, so that a small split has several."""
    monkeypatch.setattr(prefix, "ROWS_PER_CHUNK", 7)


def count_passes(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences of each pass through the lowest layers."""
    passes: list[int] = []
    original = Encoder.run_prefix

    def run_prefix(self: Encoder, pieces: Pieces, num_layers: int) -> torch.Tensor:
        passes.append(pieces.num_sequences)
        return original(self, pieces, num_layers)

    monkeypatch.setattr(Encoder, "run_prefix", run_prefix)
    return passes


@pytest.mark.parametrize("max_bytes", [2**30, 0])  # in memory, and from a file
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_those_of_the_layers_of_each_row(
    max_bytes: int, dtype: torch.dtype, splits: MakeSplits, tiny_bert: Path
) -> None:
    encoder = load_backbone(str(tiny_bert), device=CPU, compute_dtype=dtype).encoder
    split = splits()["train"]
    states = PrefixCache(encoder, max_bytes).states(split, 1)
    assert states is not None
    rows = np.array([40, 3, 63, 0, 3, 9])
    laid, pieces, _ = to_device(split, rows, 2, CPU)  # two trials of three rows, of which one has fewer word pieces
    found = states.batch(laid, CPU)
    assert (found.num_layers, found.hidden.shape, found.hidden.dtype) == (1, (laid.num_rows, 16), dtype)
    for row, start in zip(rows, laid.starts_S, strict=True):
        _, alone, _ = to_device(split, np.array([row]), 1, CPU)
        with torch.no_grad():
            expected = encoder.eval().run_prefix(alone, 1)
        here = found.hidden[start : start + len(expected)]
        tolerance = 1e-5 if dtype is torch.float32 else 0.05
        torch.testing.assert_close(here, expected, rtol=tolerance, atol=tolerance)
    assert pieces.num_dummies
    assert not found.hidden[pieces.owners_N == len(rows)].any()


def test_a_split_goes_through_the_frozen_layers_once(
    splits: MakeSplits, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits()
    passes = count_passes(backbone.encoder, monkeypatch)
    store = PrefixCache(backbone.encoder)
    assert store.states(data["train"], 1) is store.states(data["train"], 1)
    assert sum(passes) == 64
    store.states(data["validation"], 1)
    assert sum(passes) == 64 + 32
    store.states(data["train"], 2)  # another height is another state
    assert sum(passes) == 64 + 32 + 64


def test_what_does_not_fit_into_memory_goes_to_files_of_which_nothing_is_left(
    splits: MakeSplits, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    written: list[list[Path]] = []
    original = PrefixCache._spill

    def spill(self: PrefixCache, chunks: Iterator[np.ndarray]) -> list[np.ndarray]:
        def watched() -> Iterator[np.ndarray]:
            yield from chunks
            written.append(list(folder.rglob("*.arrow")))

        return original(self, watched())

    monkeypatch.setattr(PrefixCache, "_spill", spill)
    data = splits()
    store = PrefixCache(backbone.encoder, int(data["train"].offsets[-1]) * 16 * 4)  # room for one split
    first, second, third = (store.states(data[name], 1) for name in ("train", "validation", "test"))
    assert [len(files) for files in written] == [1, 1]
    assert not list(folder.iterdir())
    for states, name in ((first, "train"), (second, "validation"), (third, "test")):
        kept = PrefixCache(backbone.encoder).states(data[name], 1)
        assert states is not None
        assert kept is not None
        assert all(np.array_equal(one, other) for one, other in zip(states.chunks, kept.chunks, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_training_that_uses_them_is_the_training_without(
    dropout: float, splits: MakeSplits, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout below the trained layers makes a row's states another at each step, so then only evaluation uses them."""
    data = splits()
    config = TrialConfig(
        task="any",
        backbone="any",
        method="top_layers",
        dropout=dropout,
        num_epochs=2,
        batch_size=16,
        learning_rate=1e-2,
    )
    trials = []
    for store in (None, PrefixCache(backbone.encoder)):
        passes = count_passes(backbone.encoder, monkeypatch)
        pack = Pack(backbone.encoder, data, 2, store)
        trial = RunningTrial(Job(config=config, done=lambda outcome: None), len(data["train"]))
        pack.join([trial])
        for _ in trial.batches:
            pack.step()
            if trial.has_ended_epoch:
                pack.end_epochs([trial], metrics.get("accuracy"))
        trials.append((trial, pack.weights.rows))
        assert sum(passes) == (0 if store is None else 32 + (64 if dropout == 0 else 0))
    (without, expected_rows), (with_states, rows) = trials
    torch.testing.assert_close(rows, expected_rows, rtol=0, atol=1e-5)
    for ours, expected in zip(with_states.epochs, without.epochs, strict=True):
        assert ours.train_loss == pytest.approx(expected.train_loss, abs=1e-5)
        assert ours.validation["loss"] == pytest.approx(expected.validation["loss"], abs=1e-5)


def test_adapters_train_below_every_layer_so_they_use_none(
    splits: MakeSplits, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits()
    passes = count_passes(backbone.encoder, monkeypatch)
    pack = Pack(backbone.encoder, data, 2, PrefixCache(backbone.encoder))
    config = TrialConfig(
        task="any", backbone="any", method="adapter", method_options={"adapter_size": 4}, dropout=0.0, batch_size=16
    )
    trial = RunningTrial(Job(config=config, done=lambda outcome: None), len(data["train"]))
    pack.join([trial])
    pack.step()
    pack.evaluate([trial], "validation", metrics.get("accuracy"))
    assert passes == []


@pytest.mark.parametrize("max_bytes", [2**30, 0])  # in memory, and from a file
def test_features_take_their_part_of_the_memory_and_go_to_a_file_beyond_it(
    max_bytes: int, splits: MakeSplits, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = splits()
    split = data["train"]
    expected = PrefixCache(backbone.encoder).features(split, backbone.encoder)
    store = PrefixCache(backbone.encoder, max_bytes)
    found = store.features(split, backbone.encoder)
    assert isinstance(found.values, np.memmap) == (max_bytes == 0)
    assert np.array_equal(found.values, expected.values)
    assert torch.equal(found.in_float64(), expected.in_float64())
    laid, _, _ = to_device(split, np.array([40, 3]), 1, CPU)
    assert torch.equal(found.batch(laid, CPU).hidden, expected.batch(laid, CPU).hidden)
    assert not list(tmp_path.rglob("adaptune-prefix-*"))
    if max_bytes:
        room = PrefixCache(backbone.encoder, found.values.nbytes)  # for these alone
        room.features(split, backbone.encoder)
        assert isinstance(room.features(data["validation"], backbone.encoder).values, np.memmap)


@pytest.mark.parametrize("method", ["top_layers", "feature_based"])
def test_a_full_disk_costs_time_and_no_trial(
    method: str, splits: MakeSplits, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = splits()
    config = TrialConfig(task="any", backbone="any", method=method, dropout=0.0, batch_size=16, num_epochs=1)
    rows = []
    for store in (PrefixCache(backbone.encoder), PrefixCache(backbone.encoder, 0)):
        pack = Pack(backbone.encoder, data, 2, store)
        trial = RunningTrial(Job(config=config, done=lambda outcome: None), len(data["train"]))
        pack.join([trial])
        pack.step()
        pack.step()
        pack.evaluate([trial], "validation", metrics.get("accuracy"))
        rows.append(pack.weights.rows)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))  # nothing can be written from here on
    torch.testing.assert_close(rows[1], rows[0], rtol=0, atol=1e-5)
