"""Which model mattered: every decision taken again without each of its models, one at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ai_bridge.consensus import replay, votes_of
from ai_bridge.errors import NoModels


def impact(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each model with weight: what the decision would have been without it, largest first.

    `shift` is the total variation distance, 0..1, between the distributions with and without the
    model; `changed` whether another decision would have been final. Without the only voter there is
    no decision: `final_decision` None, `shift` 1.

    Raises InvalidRecord where the record's votes cannot be read.
    """
    found = []
    for vote in votes_of(record):
        if vote.status != "ok" or not vote.weight > 0:
            continue
        told: dict[str, Any] = {"model": vote.model, "weight": vote.weight}
        try:
            other = replay(record, without=[vote.model])
        except NoModels:
            told |= {"final_decision": None, "confidence": None, "changed": True, "shift": 1.0}
        else:
            told |= {name: other[name] for name in ("final_decision", "confidence", "changed")}
            told["shift"] = distance(record["distribution"], other["distribution"])
        found.append(told)
    return sorted(found, key=lambda each: (-each["shift"], each["model"]))


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Total variation distance of two distributions, 0..1."""
    return math.fsum(abs(one[name] - other.get(name, 0.0)) for name in one) / 2
