"""Read by Python as it starts, where this folder is on its path: a wall clock that somebody else may set.

The system's clock is everybody's. This one is set for one process, and for the Python in it alone: what waits inside
the C library goes on by the true one. A monotonic clock never jumps, and does not here.
"""

import datetime
import os
import struct
import time

_true_time, _TrueDatetime = time.time, datetime.datetime


def _jumped_s() -> float:
    with open(os.environ["CHAOS_CLOCK"], "rb") as file:
        (seconds,) = struct.unpack("d", file.read(8))
    return float(seconds)


def _time() -> float:
    return _true_time() + _jumped_s()


class _Datetime(_TrueDatetime):
    @classmethod
    def now(cls, tz=None):  # type: ignore[no-untyped-def]
        return super().now(tz) + datetime.timedelta(seconds=_jumped_s())


if "CHAOS_CLOCK" in os.environ:
    time.time = _time
    datetime.datetime = _Datetime  # type: ignore[misc]
