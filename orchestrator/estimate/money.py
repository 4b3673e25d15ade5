"""What devices cost."""

from __future__ import annotations


def cost_of(seconds: float, devices: int, price: float | None) -> float | None:
    """What devices cost for so many seconds, at a price for one of them and an hour; None where there is no price."""
    return None if price is None else seconds / 3600 * devices * price
