"""The store: a Parquet dataset that holds every record of a sweep and is readable without adaptune."""

from orchestrator.store.dataset import Store
from orchestrator.store.engine_snapshot import EngineSnapshot
from orchestrator.store.lock import STALE_AFTER_S, Holder, StoreLockedError
from orchestrator.store.predictions import TrialPredictions

__all__ = ["STALE_AFTER_S", "EngineSnapshot", "Holder", "Store", "StoreLockedError", "TrialPredictions"]
