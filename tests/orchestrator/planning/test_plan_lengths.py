"""What of a trial only its length or its steps rule out is refused before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from orchestrator.cli import main
from orchestrator.planning.plan import plan_sweep
from orchestrator.spec.spec import SweepSpecError
from tests.orchestrator.conftest import write_backbone

Values = dict[str, Any]
CONTEXT = "good w1 w2 bad w3"


def faults_of(values: Values) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        plan_sweep(values)
    return refusal.value.faults


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task of pairs of texts."""
    folder = tmp_path_factory.mktemp("tasks") / "pairs"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [{"text_a": f"w{n}", "text_b": f"{split} good w{n}", "label": n % 2} for n in range(16)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task of questions in the format of SQuAD."""
    folder = tmp_path_factory.mktemp("tasks") / "questions"
    folder.mkdir()
    for split in ("train", "validation"):
        asked = [
            {"id": f"{split}{n}", "question": f"w{n} {split}?", "answers": [{"text": "good", "answer_start": 0}]}
            for n in range(8)
        ]
        content = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": asked}]}]}
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def like_roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A backbone whose tokenizer sets four special tokens around a pair."""
    folder = write_backbone(tmp_path_factory.mktemp("backbone") / "four", seed=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_length_that_is_too_small_for_pairs_is_refused_with_the_smallest_that_would_do(
    values: Values, pairs: str
) -> None:
    values |= {"tasks": [pairs], "space": {"max_length": 4}}
    rule = "max_length: must be at least 5 to show a word piece of each text of a pair, but got 4"
    assert faults_of(values) == (rule,)
    values["space"] = {"max_length": 5}
    assert plan_sweep(values).trials


def test_so_it_is_for_questions(values: Values, questions: str) -> None:
    values |= {"tasks": [questions], "space": {"max_length": 4}}
    rule = "max_length: must be at least 5 to show a word piece of a question and its context each, but got 4"
    assert faults_of(values) == (rule,)
    values["space"] = {"max_length": 5}
    assert plan_sweep(values).trials


def test_the_tasks_the_backbones_and_the_values_that_are_at_fault_are_named(
    values: Values, pairs: str, like_roberta: str
) -> None:
    values["backbone"] = [values["backbone"], like_roberta]
    values["tasks"].append(pairs)
    values["space"] = {"max_length": {"grid": [4, 5, 8]}}
    rule = "max_length: must be at least {least} to show a word piece of each text of a pair, but got {value}"
    first, second = values["backbone"]
    assert faults_of(values) == (
        rule.format(least=5, value=4) + f" (task pairs; backbone {first})",
        rule.format(least=6, value=4) + f" (task pairs; backbone {second})",
        rule.format(least=6, value=5) + f" (task pairs; backbone {second})",
    )


@pytest.mark.parametrize("domain", [4, {"grid": [8, 4]}, {"randint": [4, 16]}])
def test_a_length_below_a_method_is_held_to_the_same(values: Values, pairs: str, domain: Any) -> None:
    values |= {"tasks": [pairs], "methods": ["layernorm", {"bitfit": {"max_length": domain}}]}
    values["search"] = {"algorithm": "random", "num_samples": 1}
    assert "must be at least 5" in faults_of(values)[0]


def test_a_method_that_reads_words_has_no_word_pieces_to_make_room_for(values: Values, pairs: str) -> None:
    values |= {"tasks": [pairs], "space": {"max_length": 3}, "methods": ["no_bert"]}
    assert plan_sweep(values).trials


def test_nothing_is_started(
    values: Values,
    pairs: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.json").write_text(json.dumps(values | {"tasks": [pairs], "space": {"max_length": 4}}), encoding="utf-8")
    assert main(["run", "sweep.json"]) == 2
    assert "max_length: must be at least 5" in capsys.readouterr().err
    assert not Path("sweeps").exists()


class TestTuners:
    """Of huggingface/peft, of which the library would say it only in training."""

    @pytest.fixture(autouse=True)
    def needs_peft(self) -> None:
        pytest.importorskip("peft")

    @pytest.fixture
    def with_peft(self, values: Values) -> Callable[..., Values]:
        def make(peft_type: str, **options: Any) -> Values:
            return values | {"methods": [{"peft": {"peft_type": peft_type, **options}}]}

        return make

    @pytest.mark.parametrize("peft_type", ["PROMPT_TUNING", "PREFIX_TUNING"])
    def test_virtual_tokens_leave_no_room_for_the_length(
        self, with_peft: Callable[..., Values], peft_type: str
    ) -> None:
        asked = with_peft(peft_type, num_virtual_tokens=4)
        rule = "max_length: must be at most 12, the backbone's positions less 4 virtual tokens of peft, but got 16"
        assert faults_of(asked) == (rule,)
        asked["space"] = {"max_length": 12}
        assert plan_sweep(asked).trials

    def test_adalora_needs_steps_to_prune_in(self, with_peft: Callable[..., Values]) -> None:
        asked = with_peft("ADALORA", rank=1, settings='{"tinit": 1, "tfinal": 1}', batch_size={"grid": [16, 32]})
        (fault,) = faults_of(asked)
        assert fault.startswith(
            "peft.settings: tinit 1 and tfinal 1 must leave steps to prune in, but the trial has 2;"
        )
        asked = with_peft("ADALORA", rank=1, settings='{"tinit": 1, "tfinal": 1}', batch_size=16)
        assert plan_sweep(asked).trials
