"""A measurement on the tiny BERT: it gives times of real steps, and leaves nothing else behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.factories import trial_config
from trainables import tasks
from trainables.backbones.loading import describe_backbone
from trainables.estimate.benchmark import BenchmarkEngine, Findings, Sample
from trainables.estimate.calibration import Calibration, combine
from trainables.estimate.calibration_file import calibration_path, keep_calibration, read_calibration
from trainables.estimate.flops import measure_task, trial_work
from trainables.estimate.throughput import ThroughputTable, workload_key
from trainables.faults import FaultsError

MakeSample = Callable[..., Sample]
CPU = torch.device("cpu")


@pytest.fixture
def sample(tiny_bert: Path, task_folder: Callable[..., Path], cache_dir: Path) -> MakeSample:
    """A trial of a method on a small task."""
    folder = task_folder(rows=64)

    def make(method: str = "adapter", pack_size: int = 2, **options: int) -> Sample:
        config = trial_config(
            method,
            task=str(folder),
            backbone=str(tiny_bert),
            method_options=options,
            batch_size=8,
            max_length=16,
        )
        info = describe_backbone(str(tiny_bert))
        return Sample(
            config=config,
            kind=workload_key(config, task=tasks.load(str(folder)).fingerprint, backbone=str(info.fingerprint)),
            work=trial_work(config, info.shape, measure_task(str(folder), 16)),
            pack_size=pack_size,
        )

    return make


def measure(*samples: Sample) -> Findings:
    return BenchmarkEngine(device="cpu", num_threads=1).measure_all(samples, seconds=0.2, wait=lambda: None)


def test_every_part_of_a_trial_takes_time(sample: MakeSample) -> None:
    wanted = sample(adapter_size=4)
    found = measure(wanted)
    (throughput,) = found.throughputs
    assert found.faults == ()
    assert throughput is not None
    assert throughput.kind == wanted.kind
    assert throughput.trial_s + throughput.fixed_s > 0
    assert throughput.evaluation_s > 0
    assert throughput.mean_length is not None
    assert 3 < throughput.mean_length < 12
    assert set(found.task_s) == {wanted.kind.task}
    assert 0 < found.core_share <= 1


def test_what_a_frozen_encoder_gives_is_told_apart_from_the_steps(sample: MakeSample) -> None:
    (throughput,) = measure(sample("feature_based")).throughputs
    assert throughput is not None
    assert throughput.once_flops > 0
    assert throughput.once_s >= 0


def test_a_trial_that_cannot_be_measured_is_named_and_the_others_are_measured(sample: MakeSample) -> None:
    broken = sample(adapter_size=4)
    broken = replace(broken, config=replace(broken.config, task="/nowhere"))
    found = measure(broken, sample(adapter_size=2))
    assert [throughput is None for throughput in found.throughputs] == [True, False]
    assert any("/nowhere" in fault for fault in found.faults)
    assert len(combine([found, found]).throughputs) == 1
    with pytest.raises(FaultsError, match="nowhere"):
        combine([measure(broken)])


def test_processes_are_averaged(sample: MakeSample) -> None:
    found = measure(sample(adapter_size=4))
    (throughput,) = found.throughputs
    assert throughput is not None
    slower = replace(
        found, throughputs=(replace(throughput, trial_s=3 * throughput.trial_s),), start_s=found.start_s + 2
    )
    both = combine([found, slower])
    assert both.throughputs[0].trial_s == pytest.approx(2 * throughput.trial_s)
    assert both.start_s == pytest.approx(found.start_s + 1)
    assert both.engines == 2


def test_a_calibration_is_kept_and_serves_later_plans(sample: MakeSample, tmp_path: Path) -> None:
    wanted = sample(adapter_size=4)
    calibration = combine([measure(wanted)])
    path = keep_calibration(calibration, CPU, tmp_path)
    assert path == calibration_path(CPU, tmp_path)
    kept = read_calibration(CPU, tmp_path)
    assert kept == calibration
    assert (
        ThroughputTable(kept.throughputs, lambda precision: 1.0).timing(wanted.kind, wanted.work).source
        == "calibration"
    )


def test_later_calibrations_add_to_earlier_ones_and_replace_what_they_measured_again(
    sample: MakeSample, tmp_path: Path
) -> None:
    first = combine([measure(sample(adapter_size=4))])
    again = replace(first, throughputs=(replace(first.throughputs[0], trial_s=7.0),))
    other_kind = replace(first.throughputs[0].kind, task="another")
    keep_calibration(
        replace(first, throughputs=(*first.throughputs, replace(first.throughputs[0], kind=other_kind))), CPU, tmp_path
    )
    keep_calibration(again, CPU, tmp_path)
    kept = read_calibration(CPU, tmp_path)
    assert kept is not None
    assert {throughput.kind: throughput.trial_s for throughput in kept.throughputs} == {
        first.throughputs[0].kind: 7.0,
        other_kind: first.throughputs[0].trial_s,
    }


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"throughputs": [{}], "faults": []}', '{"throughputs": 3, "faults": 4}']
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: str) -> None:
    assert read_calibration(CPU, tmp_path) is None
    path = calibration_path(CPU, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert read_calibration(CPU, tmp_path) is None


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    calibration = Calibration(
        host="h", device="d", engines=1, start_s=1.0, task_s={}, core_share=1.0, throughputs=(), faults=()
    )
    (tmp_path / "calibrations").write_text("a file in its place")
    assert keep_calibration(calibration, CPU, tmp_path) is None
