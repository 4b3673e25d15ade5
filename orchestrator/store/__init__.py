"""The store: a Parquet dataset that holds every record of a sweep and is readable without adaptune."""

from orchestrator.store.dataset import Store
from orchestrator.store.lock import STALE_AFTER_S, Holder, StoreLockedError
from orchestrator.store.working import Working

__all__ = ["STALE_AFTER_S", "Holder", "Store", "StoreLockedError", "Working"]
