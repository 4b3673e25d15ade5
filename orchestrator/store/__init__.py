"""The store: a Parquet dataset that holds every record of a sweep and is readable without adaptune."""

from orchestrator.store.dataset import Store
from orchestrator.store.engine_snapshot import EngineSnapshot
from orchestrator.store.fence import StoreLockedError
from orchestrator.store.identity import Holder
from orchestrator.store.lock import SILENCE_S
from orchestrator.store.predictions import TrialPredictions

__all__ = ["SILENCE_S", "EngineSnapshot", "Holder", "Store", "StoreLockedError", "TrialPredictions"]
