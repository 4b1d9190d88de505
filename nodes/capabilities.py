"""How well a machine is suited to lead: arithmetic on what was measured of it.

    score = max(0, sum of the parts), each part its weight times

    cores     log2(1 + cores)                       each doubling of a resource counts the same
    memory    log2(1 + GiB) / 2
    gpus      number of GPUs
    gpu_memory  log2(1 + GiB of all GPUs) / 4
    gpu_kind  0.5 a GPU of the kinds in DATACENTRE_GPUS
    disk      log2(1 + free GiB) / 10
    fsync     1 / (1 + p99 in ms / 10)              a disk that answers at once: 1
    load      -min(2, load of the last minute / cores)
    latency   -min(2, median round trip to peers in ms / 10)
    models    log2(1 + models loaded) / 4
    trading   log2(1 + trading systems) / 4

Unknown counts as nothing. Scores choose who asks first; they never decide safety.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DATACENTRE_GPUS = ("A100", "H100", "H200", "B100", "B200", "L40", "MI2", "MI3")
PARTS = (
    "cores", "memory", "gpus", "gpu_memory", "gpu_kind", "disk", "fsync", "load", "latency",
    "models", "trading",
)  # fmt: skip
WEIGHTS: Mapping[str, float] = dict.fromkeys(PARTS, 1.0) | {"gpus": 2.0}


def score(capabilities: Mapping[str, Any], weights: Mapping[str, float] = WEIGHTS) -> float:
    """Suitability to lead, 0 or more; the larger the better."""
    return total(score_parts(capabilities, weights))


def total(parts: Mapping[str, float]) -> float:
    """The score that parts add up to."""
    return round(max(0.0, sum(parts.values())), 3)


def score_parts(
    capabilities: Mapping[str, Any], weights: Mapping[str, float] = WEIGHTS
) -> dict[str, float]:
    """What each measurement adds to the score; those that add nothing are left out."""
    plain = _machine(capabilities) | _state(capabilities)
    weighted = {name: round(weights.get(name, 1.0) * value, 3) for name, value in plain.items()}
    return {name: value for name, value in weighted.items() if value}


def _machine(told: Mapping[str, Any]) -> dict[str, float]:
    gpus = told.get("gpus") or ()
    gpu_gib = sum(_number(gpu, "memory_bytes") for gpu in gpus) / 2**30
    strong = sum(any(kind in str(gpu.get("name")) for kind in DATACENTRE_GPUS) for gpu in gpus)
    return {
        "cores": math.log2(1 + _number(told, "cores")),
        "memory": math.log2(1 + _number(told, "memory_bytes") / 2**30) / 2,
        "gpus": float(len(gpus)),
        "gpu_memory": math.log2(1 + gpu_gib) / 4,
        "gpu_kind": strong / 2,
        "disk": math.log2(1 + _number(told, "disk_free_bytes") / 2**30) / 10,
    }


def _state(told: Mapping[str, Any]) -> dict[str, float]:
    cores = _number(told, "cores") or 1.0
    fsync = 1 / (1 + _number(told, "fsync_p99_ms") / 10) if "fsync_p99_ms" in told else 0.0
    return {
        "fsync": fsync,
        "load": -min(2.0, _number(told, "load1") / cores),
        "latency": -min(2.0, _number(told, "peer_latency_ms") / 10),
        "models": math.log2(1 + len(told.get("models") or ())) / 4,
        "trading": math.log2(1 + len(told.get("trading_systems") or ())) / 4,
    }


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return max(0.0, float(value)) if known and value is not None else 0.0
