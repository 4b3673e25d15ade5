"""Which adapters a fusion takes, and which it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.factories import trial_config
from tests.pieces import sublayer_outputs
from trainables.backbones.loading import Backbone
from trainables.config import Scalar
from trainables.estimate.preview import complete_options
from trainables.faults import FaultsError
from trainables.methods import identity_of, parse_options
from trainables.methods.adapter_fusion import Fusion, stack_key
from trainables.nn.encoder import Encoder
from trainables.training.model import AdaptedModel, build_model

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def stage_one(backbone: Backbone, small_options: Callable[[str, Encoder], dict[str, Scalar]], tmp_path: Path) -> Path:
    """Exported adapters of the tasks "first" and "second", to change at will."""
    (folder,) = small_options("adapter_fusion", backbone.encoder).values()
    return shutil.copytree(str(folder), tmp_path / "store" / "adapters")


def edit(folder: Path, change: Change) -> None:
    path = folder / "adapter_config.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def faults(backbone: Backbone, **options: Scalar) -> list[str]:
    with pytest.raises(FaultsError) as refusal:
        parse_options("adapter_fusion", options, backbone.info.shape)
    return list(refusal.value.faults)


def build(backbone: Backbone, **options: Scalar) -> AdaptedModel:
    trial = trial_config("adapter_fusion", method_options=options)
    return build_model(backbone.encoder, [trial], 2)


def fusion(model: AdaptedModel) -> Fusion:
    module = sublayer_outputs(model.encoder)[1].adapter
    assert isinstance(module, Fusion)
    return module


class TestSources:
    def test_a_store_and_its_folder_of_adapters_are_the_same(self, backbone: Backbone, stage_one: Path) -> None:
        for place in (stage_one, stage_one.parent):
            assert len(fusion(build(backbone, adapters=str(place))).scales) == 2

    def test_the_named_tasks_are_fused(self, backbone: Backbone, stage_one: Path) -> None:
        shutil.copytree(stage_one / "first", stage_one / "another")
        edit(stage_one / "another", lambda about: about["task"].update(name="third"))
        assert len(fusion(build(backbone, adapters=str(stage_one))).scales) == 3
        assert len(fusion(build(backbone, adapters=str(stage_one), tasks="third, second")).scales) == 2

    def test_of_several_adapters_for_a_task_the_best_on_validation_is_taken(
        self, backbone: Backbone, stage_one: Path
    ) -> None:
        shutil.copytree(stage_one / "second", stage_one / "better")

        def outdo(about: dict[str, Any]) -> None:
            about["task"]["name"] = "first"
            about["scores"]["validation/accuracy"] = 0.9

        edit(stage_one / "better", outdo)
        made = fusion(build(backbone, adapters=str(stage_one)))
        assert torch.equal(made.get_buffer("down_proj_0"), made.get_buffer("down_proj_1"))

    def test_v_starts_as_the_identity_and_costs_what_it_strays(self, backbone: Backbone, stage_one: Path) -> None:
        model = build(backbone, adapters=str(stage_one))
        value = fusion(model).value.weight
        torch.testing.assert_close(value[0], torch.eye(16) * (1 - 1e-6) + 1e-6, rtol=0, atol=1e-7)
        with torch.no_grad():
            value += 0.5
        penalty = model.penalty()
        assert penalty is not None
        torch.testing.assert_close(penalty, torch.tensor([0.01 * 16 * 16 * 0.25]), rtol=1e-3, atol=1e-5)


class TestFaults:
    def test_no_adapters_one_adapter_and_unknown_tasks(self, backbone: Backbone, stage_one: Path) -> None:
        assert "must name the store" in faults(backbone)[0]
        shutil.rmtree(stage_one / "second")
        assert "must be two at least" in faults(backbone, adapters=str(stage_one))[0]
        both = faults(backbone, adapters=str(stage_one), tasks="frist")
        assert "did you mean 'first'" in both[0]
        assert len(both) == 2

    @pytest.mark.parametrize(("option", "value"), [("placement", "houlsby"), ("train_layernorms", True), ("depth", 2)])
    def test_adapters_of_another_design_are_refused(
        self, backbone: Backbone, stage_one: Path, option: str, value: Scalar
    ) -> None:
        edit(stage_one / "first", lambda about: about["trial_config"]["method_options"].update({option: value}))
        (fault,) = faults(backbone, adapters=str(stage_one), tasks="first,second")
        assert "first must be of method adapter with placement pfeiffer" in fault
        assert f"{option} {value!r}" in fault

    def test_a_better_adapter_of_another_design_does_not_get_in_the_way(
        self, backbone: Backbone, stage_one: Path
    ) -> None:
        shutil.copytree(stage_one / "first", stage_one / "better")

        def outdo(about: dict[str, Any]) -> None:
            about["trial_config"]["method_options"]["placement"] = "houlsby"
            about["scores"]["validation/accuracy"] = 0.9

        edit(stage_one / "better", outdo)
        assert len(fusion(build(backbone, adapters=str(stage_one))).scales) == 2

    def test_other_libraries_folders_are_passed_by_and_broken_ones_are_a_fault(
        self, backbone: Backbone, stage_one: Path
    ) -> None:
        (stage_one / "foreign").mkdir()
        (stage_one / "foreign" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        assert len(fusion(build(backbone, adapters=str(stage_one))).scales) == 2
        weights = (stage_one / "second" / "adapter_model.safetensors").read_bytes()
        (stage_one / "second" / "adapter_model.safetensors").write_bytes(weights[:100])
        assert "must be folders of exported adapters that can be read" in faults(backbone, adapters=str(stage_one))[0]
        (stage_one / "first" / "adapter_config.json").write_text("{bad")
        assert "can be read" in faults(backbone, adapters=str(stage_one))[0]
        assert "can be read" in faults(backbone, adapters="x" * 5000)[0]

    def test_an_adapter_written_without_a_placement_stands_where_the_default_is(
        self, backbone: Backbone, stage_one: Path
    ) -> None:
        edit(stage_one / "first", lambda about: about["trial_config"]["method_options"].pop("placement"))
        (fault,) = faults(backbone, adapters=str(stage_one), tasks="first,second")
        assert "placement 'houlsby'" in fault

    def test_adapters_of_other_weights_are_refused(self, backbone: Backbone, stage_one: Path) -> None:
        edit(stage_one / "first", lambda about: about.update(backbone_fingerprint="others"))
        with pytest.raises(FaultsError, match="first was trained on other weights"):
            build(backbone, adapters=str(stage_one))


class TestIdentity:
    def identity(self, place: Path, **options: Scalar) -> dict[str, Scalar]:
        return identity_of("adapter_fusion", {"adapters": str(place), "tasks": "first,second", **options})

    def test_it_is_what_the_adapters_are_and_not_where(self, stage_one: Path, tmp_path: Path) -> None:
        before = self.identity(stage_one)
        assert self.identity(shutil.copytree(stage_one, tmp_path / "elsewhere")) == before
        shutil.copytree(stage_one / "first", stage_one / "third")
        edit(stage_one / "third", lambda about: about["task"].update(name="third"))
        assert self.identity(stage_one) == before
        assert self.identity(stage_one, tasks="third,first") != before

    def test_what_is_planned_is_what_is_fused_whatever_is_exported_later(
        self, backbone: Backbone, stage_one: Path
    ) -> None:
        pinned = complete_options("adapter_fusion", {"adapters": str(stage_one)}, backbone.info.shape)
        assert pinned["tasks"] == "first,second"
        before = identity_of("adapter_fusion", pinned)
        shutil.copytree(stage_one / "first", stage_one / "better")
        edit(stage_one / "better", lambda about: about["scores"].update({"validation/accuracy": 0.9}))
        planned = self.identity(stage_one, pooling=pinned["pooling"])
        assert identity_of("adapter_fusion", pinned) == before == planned
        first = parse_options("adapter_fusion", pinned)
        assert stack_key(first) != stack_key(parse_options("adapter_fusion", {"adapters": str(stage_one)}))

    def test_a_model_card_and_a_place_of_the_task_decide_nothing(self, stage_one: Path) -> None:
        before = self.identity(stage_one)
        (stage_one / "first" / "README.md").write_text("other words")
        edit(stage_one / "first", lambda about: about["trial_config"].update(task="/elsewhere/first"))
        assert self.identity(stage_one) == before

    def test_other_weights_are_another_fusion(self, stage_one: Path) -> None:
        before = self.identity(stage_one)
        weights = stage_one / "first" / "adapter_model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        assert self.identity(stage_one) != before
