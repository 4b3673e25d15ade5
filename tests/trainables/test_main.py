"""`python -m trainables`: one trial, JSON lines, and an exit status that says how it went."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet
import pytest

from trainables import __main__ as alone
from trainables.__main__ import main
from trainables.config import TrialConfig


@pytest.fixture
def arguments(tiny_bert: Path, task_folder: Callable[..., Path], cache_dir: Path) -> list[str]:
    """The command line of a small trial."""
    text = f"--task {task_folder()} --backbone {tiny_bert} --option adapter_size=4 --num-epochs 2 --max-length 16"
    return [*text.split(), "--precision", "fp32", "--device", "cpu"]


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_an_epoch_and_then_the_outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    first, second, outcome = lines(capsys.readouterr().out)
    assert [first["event"], second["event"], outcome["event"]] == ["epoch", "epoch", "outcome"]
    assert [first["epoch"], second["epoch"]] == [1, 2]
    assert outcome["status"] == "completed"
    assert outcome["validation_score"] == second["validation_score"]
    assert isinstance(outcome["test_score"], float)
    assert outcome["trained_params"] == 2 * 2 * (2 * 16 * 4 + 16 + 4) + 4 * 2 * 16 + 2 * 16 + 34


def test_a_configuration_file_is_the_same_trial(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--seed", "3", "--learning-rate", "1e-3"]) == 0
    expected = lines(capsys.readouterr().out)
    config = TrialConfig(
        task=arguments[1],
        backbone=arguments[3],
        method="adapter",
        method_options={"adapter_size": 4},
        num_epochs=2,
        max_length=16,
        precision="fp32",
        learning_rate=1e-3,
        seed=3,
    )
    path = tmp_path / "trial.json"
    path.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    assert main(["--config", str(path), "--device", "cpu"]) == 0
    again = lines(capsys.readouterr().out)
    for line, same in zip(expected, again, strict=True):
        for key in ("train_loss", "validation_score", "test_score", "validation", "test"):
            assert line.get(key) == same.get(key)


def test_a_failed_trial_is_exit_status_1_and_its_traceback_is_in_the_outcome(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--learning-rate", "1e30"]) == 1
    outcome = lines(capsys.readouterr().out)[-1]
    assert outcome["status"] == "failed"
    assert "TrainingDivergedError" in str(outcome["error"])


class TestPredictions:
    def test_are_written_as_they_were_scored(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*arguments, "--predictions", str(tmp_path / "out.parquet")]) == 0
        outcome = lines(capsys.readouterr().out)[-1]
        assert "predictions" not in outcome
        table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
        assert set(table["split"].to_pylist()) == {"validation", "test"}
        for split in ("validation", "test"):
            rows = table.filter(pc.equal(table["split"], split))
            assert pc.mean(pc.equal(rows["label"], rows["prediction"])).as_py() == outcome[f"{split}_score"]

    def test_without_a_place_for_them_nothing_is_trained(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for place in (tmp_path / "nowhere" / "out.parquet", tmp_path, tmp_path / ("x" * 300)):
            assert main([*arguments, "--predictions", str(place)]) == 2
            printed = capsys.readouterr()
            assert printed.out == ""
            assert "--predictions: must be a file in a folder that exists" in printed.err

    def test_a_disk_that_refuses_them_is_said_when_the_trial_has_been_told_of(
        self,
        arguments: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def full(path: Path, outcome: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(alone, "_write_predictions", full)
        assert main([*arguments, "--predictions", str(tmp_path / "out.parquet")]) == 2
        printed = capsys.readouterr()
        assert lines(printed.out)[-1]["status"] == "completed"
        assert "--predictions: the file must be writable" in printed.err


class TestFaults:
    def refused(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    def test_values_are_refused_all_at_once(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        wrong = ["--learning-rate", "fast", "--batch-size", "0", "--seed", "-1", "--option", "adapter_size"]
        text = self.refused([*arguments, *wrong], capsys)
        assert "4 faults" in text
        for part in ("learning_rate: must be", "batch_size: must be", "seed: must be", "--option: must be KEY=VALUE"):
            assert part in text

    def test_a_task_a_backbone_and_a_method_are_refused_together(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = ["--task", "toy/sentimental", "--backbone", "/no/such/folder", "--method", "adaptor"]
        text = self.refused([*arguments, *given], capsys)
        assert "3 faults" in text
        for part in ("sentimental", "/no/such/folder", "unknown method 'adaptor'; did you mean 'adapter'?"):
            assert part in text

    def test_unknown_options_are_refused_with_the_valid_ones(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = self.refused([*arguments, "--option", "size=3", "--option", "init_std=small"], capsys)
        assert "2 faults" in text
        assert "Known: activation, adapter_size" in text
        assert "adapter.init_std: must be a number, but got 'small'" in text

    def test_what_the_backbone_cannot_do_is_refused(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = self.refused([*arguments, "--option", "adapter_size=17", "--max-length", "33"], capsys)
        assert "adapter_size: must be in [1, 16]" in text
        assert "max_length: must be at most 32" in text

    def test_a_length_that_shows_nothing_of_a_text_is_refused(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for split in ("train", "validation"):
            rows = [{"text_a": f"w{n}", "text_b": f"{split} w{n}", "label": n % 2} for n in range(8)]
            (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        given = [*arguments, "--task", str(tmp_path), "--max-length", "4"]
        assert "max_length: must be at least 5 to show a word piece of each text" in self.refused(given, capsys)

    def test_virtual_tokens_without_room_are_refused(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("peft")
        given = ["--method", "peft", "--option", "peft_type=PROMPT_TUNING", "--option", "num_virtual_tokens=20"]
        arguments = [part for part in arguments if part not in ("--option", "adapter_size=4")]
        assert "max_length: must be at most 12" in self.refused([*arguments, *given], capsys)

    def test_a_task_is_required(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "task: must be a non-empty string" in self.refused([], capsys)

    @pytest.mark.parametrize(
        "content",
        [None, "{", '{"task": "toy/sentiment"}', "[]", "null", "7", "[" * 100_000, '{"task": "\udcff"}'],
    )
    def test_a_faulty_configuration_file_is_refused(
        self, content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "trial.json"
        if content is not None:
            path.write_text(content, encoding="utf-8", errors="surrogateescape")
        text = self.refused(["--config", str(path)], capsys)
        assert (
            content not in (None, "{")
            or "command line: 1 fault\n  - --config: must be a JSON file that can be read, but " in text
        )

    def test_what_stands_beside_a_configuration_file_is_refused_instead_of_dropped(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "trial.json"
        path.write_text(json.dumps({"task": arguments[1], "backbone": arguments[3], "method": "layernorm"}))
        given = ["--config", str(path), "--seed", "3", "--learning-rate", "1e-3", "--option", "pooling=mean"]
        text = self.refused(given, capsys)
        assert "must be all there is of the trial, but got --learning-rate, --option, --seed too" in text

    def test_a_place_where_nothing_can_be_saved_is_refused_before_anything_is_trained(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
            text = self.refused([*arguments, "--save", str(place)], capsys)
            assert f"--save: must be a folder or a new one, but {tmp_path / 'file'} is a file" in text

    def test_a_folder_of_other_things_is_refused_and_left_as_it_is(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (papers := tmp_path / "home" / "references").mkdir(parents=True)
        (papers / "houlsby.pdf").write_text("a paper")
        (tmp_path / "home" / "README.md").write_text("mine")
        text = self.refused([*arguments, "--save", str(tmp_path / "home")], capsys)
        assert "--save: must be a new or empty folder, or that of a saved adapter" in text
        assert (papers / "houlsby.pdf").read_text() == "a paper"
        assert (tmp_path / "home" / "README.md").read_text() == "mine"

    def test_a_configuration_is_found_in_the_home_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "trial.json").write_text("[]")
        assert "--config: must be a JSON object" in self.refused(["--config=~/trial.json"], capsys)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, trainables.__main__ as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert command.main(['--batch-size', '0']) == 2\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--learning-rate" in done.stdout
