"""Read by Python as it starts, where this folder is on its path: a wall clock that somebody else may set.

The system's clock is everybody's. This one is set for one process, and for `time.time` in it alone: what waits inside
the C library goes on by the true one, and a `datetime` of one's own breaks programs in C that know the true one's size.
A monotonic clock never jumps, and does not here.
"""

import os
import struct
import time

_true_time = time.time


def _time() -> float:
    with open(os.environ["CHAOS_CLOCK"], "rb") as file:
        (seconds,) = struct.unpack("d", file.read(8))
    return _true_time() + float(seconds)


if "CHAOS_CLOCK" in os.environ:
    time.time = _time
