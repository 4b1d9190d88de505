"""A wall clock that jumps. Python imports this file at its start where `PYTHONPATH` names its
folder: `time.time` and `time.time_ns` are off by the seconds that the file `CLOCK_FILE` holds.

The engine's clock cannot be moved this way (it is no Python, and linked statically); the kernel's
time namespaces do not move the wall clock, and the machine's own clock is not the tests' to set.
"""

from __future__ import annotations

import os
import time

_real, _real_ns = time.time, time.time_ns
_file = os.environ["CLOCK_FILE"]
_known: list[float] = [float("-inf"), 0.0]  # when it was read, what it said


def _off() -> float:
    now = time.monotonic()
    if now - _known[0] > 0.05:
        try:
            with open(_file) as file:
                _known[1] = float(file.read() or 0)
        except (OSError, ValueError):
            _known[1] = 0.0
        _known[0] = now
    return _known[1]


def _shifted() -> float:
    return _real() + _off()


def _shifted_ns() -> int:
    return _real_ns() + int(_off() * 1e9)


time.time, time.time_ns = _shifted, _shifted_ns
