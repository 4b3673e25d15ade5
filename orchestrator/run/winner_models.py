"""The weights of winners on their way from the store into MLflow."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.planning.plan import SweepPlan
from orchestrator.record import TrialRecord
from orchestrator.run.winners import Winners
from orchestrator.secrets import masked
from orchestrator.store import Store

if TYPE_CHECKING:
    from orchestrator.tracking import WinnerModel

logger = logging.getLogger(__name__)


def winner_models(plan: SweepPlan, store: Store, winners: Winners) -> list[WinnerModel]:
    """What MLflow is to hold of a sweep that has ended: each winner whose weights are kept.

    The one to ship of each task is to be registered, where the sweep names a registered model.
    """
    from orchestrator.tracking.winner_models import registered_name

    recommended = winners.recommended()
    names: dict[str, str] = {}
    if plan.spec.register_model is not None:
        several = len(plan.spec.tasks) > 1
        names = {
            i: registered_name(plan.spec.register_model, task if several else None) for task, i in recommended.items()
        }
    records = store.records(winners.best() & store.kept_weights())
    for trial_id in sorted(names.keys() - {record.trial_id for record in records}):
        logger.warning(
            "there are no weights of trial %s to register as %s; `adaptune export --register-model` trains it again",
            *(trial_id, names[trial_id]),
        )
    return [winner_model(store, record, register_as=names.get(record.trial_id)) for record in records]


def winner_model(
    store: Store, record: TrialRecord, *, register_as: str | None = None, travels: bool = False
) -> WinnerModel:
    """The model of one trial, whose weights are read when they are asked for.

    One that is registered, or otherwise `travels`, carries a backbone that no name leads to from another machine.
    """
    from orchestrator.tracking import WinnerModel

    return WinnerModel(
        record=record,
        files=functools.partial(store.weights, record.trial_id, record.started_at),
        backbone=_carried(record.backbone) if travels or register_as is not None else {},
        store=masked(store.uri if "://" in store.uri else store.path),
        register_as=register_as,
    )


@functools.cache
def _carried(backbone: str) -> Mapping[str, Path]:
    """The files of a backbone that travel with a model."""
    from trainables.backbones.loading import carried_files

    return carried_files(backbone)
