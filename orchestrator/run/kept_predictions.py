"""The predictions of a store, as results ask for them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from orchestrator.store import Store
from trainables.faults import FaultsError


class KeptPredictions:
    """A `PredictionSource` that reads a store, and nothing of it before it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, trainings: Mapping[str, str | None], split: str | None) -> Mapping[str, pa.Table]:
        return self._store.predictions(trainings, split)

    def why_none(self, sweep: str) -> str:
        try:
            spec = json.loads(self._store.spec_json(sweep))
        except (FaultsError, ValueError):  # it is of a sweep that has its specs elsewhere
            spec = {}
        keeps = spec.get("keep_predictions")
        if keeps is False:
            return f"sweep {sweep} says keep_predictions: false"
        if keeps is None:
            return "it was trained by an adaptune that kept none"
        return "none were kept when it was trained, or their file in predictions/ is gone"
