"""How well a machine is suited to lead: arithmetic on what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def score(capabilities: Mapping[str, Any]) -> float:
    """Suitability to lead, 0 or more; the larger the better.

    `log2(1 + cores) + log2(1 + memory in GiB) / 2 + 2 * GPUs`: each doubling of a resource counts
    the same, memory half of cores, and a GPU more than doubling both. Unknown counts as nothing.
    """
    cores = float(capabilities.get("cores") or 0)
    memory_gib = float(capabilities.get("memory_bytes") or 0) / 2**30
    gpus = len(capabilities.get("gpus") or ())
    return round(math.log2(1 + cores) + math.log2(1 + memory_gib) / 2 + 2 * gpus, 3)
