"""The waist of the house: what was planned joined with what came of it."""

from __future__ import annotations

import pytest

from orchestrator.record import TrialStatus, describe_trial, make_record
from tests.factories import epoch_reports, outcome, planned_trial, trial_config
from trainables.outcome import OutcomeStatus, TrialOutcome

TRIAL = planned_trial(
    "t",
    trial_config(task="some/folder", backbone="minilm", method_options={"adapter_size": 2}, seed=7),
    config_id="c",
    task="opinion",
    trained_params=12,
    provenance={"data_fingerprint": "d", "backbone_fingerprint": "b"},
)


def measured(status: OutcomeStatus) -> TrialOutcome:
    return outcome(
        status,
        epochs=epoch_reports(0.75),
        metric="accuracy",
        validation_score=0.75,
        test_score=0.7,
        trained_params=12,
        provenance={"torch": "2"},
    )


def test_a_record_says_what_was_planned_and_what_came_of_it() -> None:
    record = make_record("sweep", TRIAL, measured(OutcomeStatus.COMPLETED), engine="host/cpu")
    assert (record.sweep, record.trial_id, record.config_id, record.seed) == ("sweep", "t", "c", 7)
    assert (record.task, record.backbone, record.method) == ("opinion", "minilm", "adapter")
    assert record.hyperparameters == TRIAL.config.hyperparameters()
    assert record.hyperparameters["adapter_size"] == 2
    assert (record.validation_score, record.test_score, record.epochs[0].step) == (0.75, 0.7, 10)
    assert record.provenance == {"data_fingerprint": "d", "backbone_fingerprint": "b", "torch": "2"}
    assert (record.engine, record.error) == ("host/cpu", None)


@pytest.mark.parametrize("ended", OutcomeStatus)
def test_every_outcome_has_its_status(ended: OutcomeStatus) -> None:
    assert make_record("sweep", TRIAL, measured(ended)).status.value == ended.value


def test_only_what_would_repeat_itself_is_finished() -> None:
    assert [status for status in TrialStatus if status.is_finished()] == [TrialStatus.COMPLETED, TrialStatus.PRUNED]


def test_a_trial_is_described_by_what_was_asked_for_and_it_has() -> None:
    values = {"adapter_size": 64, "learning_rate": 0.00031234567, "dropout": None, "houlsby": True, "act": "gelu_new"}
    assert describe_trial("adapter", values, 0) == "adapter seed 0"
    names = ("adapter_size", "act", "houlsby", "num_layers", "learning_rate", "dropout")
    assert describe_trial("adapter", values, 7, names) == (
        "adapter adapter_size=64 act=gelu_new houlsby=true learning_rate=0.000312346 dropout=null seed 7"
    )
