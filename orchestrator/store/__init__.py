"""The store: a Parquet dataset that holds every record of a sweep and is readable without adaptune."""

from orchestrator.store.dataset import Store
from orchestrator.store.lock import StoreLockedError
from orchestrator.store.working import Working

__all__ = ["Store", "StoreLockedError", "Working"]
