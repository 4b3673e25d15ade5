"""One trial's weights as a version of a registered model, when somebody asks for it after the sweep."""

from __future__ import annotations

import dataclasses

from orchestrator.secrets import masked
from orchestrator.tracking.address import given_tracking_uri
from orchestrator.tracking.run_fields import SWEEP_RUN
from orchestrator.tracking.runs import MlflowRuns
from orchestrator.tracking.winner_models import WinnerModel, WinnerModels
from trainables.faults import FaultsError


def register_model(
    sweep: str, model: WinnerModel, name: str, *, tracking_uri: str | None = None, window: MlflowRuns | None = None
) -> str:
    """Make a trial's model a version of a registered one, and return its address, such as `models:/tickets/3`.

    The model is written where MLflow does not hold it yet, and belongs to the trial's run where there is one. Asking
    again makes no second version. Raises `FaultsError` where MLflow does not take it.
    """
    window = window or MlflowRuns(given_tracking_uri(tracking_uri), sweep)
    record = model.record
    try:
        window.open()
        run_id = window.find_trial(record.trial_id)
        sweep_run = window.client.get_run(run_id).data.tags.get(SWEEP_RUN) if run_id else None
        models = WinnerModels(window, sweep)
        unregistered = dataclasses.replace(model, register_as=None)
        model_id = models.write(unregistered, run_id=run_id, sweep_run=sweep_run, is_winner=False)
        if model_id is None:
            raise FaultsError("MLflow", [f"the weights of trial {record.trial_id} must be there, but are gone"])
        return models.register(model_id, name, record, run_id)
    except FaultsError:
        raise
    except Exception as error:  # whatever MLflow, its database or the network raise
        why = masked(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        place = masked(window.tracking_uri)
        raise FaultsError("MLflow", [f"MLflow at {place} must take the model, but does not: {why}"]) from error
