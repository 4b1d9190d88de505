"""Outcomes by themselves: what the price did after a decision's horizon, seen only when it came.

The judge reads the log in its order. A decision on one symbol waits for the first price of the same
source that is stored after it and whose event time is at least `horizon_s` past that of the price
it was decided at. So an outcome depends on what is stored up to that price and on nothing later,
and cannot be told before.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ai_bridge.consensus import decisions_of
from ai_bridge.prediction import DECISIONS
from ai_bridge.record import DEAD_BAND, outcome_event

MOST_WAITING = 100_000  # decisions; beyond it the oldest are never judged
Record = Mapping[str, Any]


class _Data(msgspec.Struct, frozen=True):
    symbol: str
    price: float


class Price(msgspec.Struct, frozen=True):
    """What counts of a `trading_data` item."""

    data: _Data
    timestamp: float
    source: str = "unknown"


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision and what came of it: the return as a fraction, net of nothing."""

    record: Record
    gain: float
    known_at: float  # event time of the price that tells
    at_offset: int  # where that price is stored

    def event(self, record: Record) -> dict[str, Any]:
        """The event to learn from; `record` is the decision with its late votes."""
        return outcome_event(record, {"outcome": right(self.gain, record)}) | {
            "return": self.gain,
            "horizon_s": record["horizon_s"],
            "costs": record.get("costs", 0.0),
            "known_at": self.known_at,
            "at_offset": self.at_offset,
        }


def right(gain: float, record: Record) -> str:
    """Buy or sell where that would have earned more than its costs and the dead band, else hold."""
    least = float(record.get("costs", 0.0)) + float(record.get("dead_band", DEAD_BAND))
    return "buy" if gain > least else "sell" if gain < -least else "hold"


def waits(record: Record) -> bool:
    """Whether a decision is one that the judge can judge."""
    symbols = record.get("symbols", [])
    return (
        bool(record.get("horizon_s"))
        and len(symbols) == 1
        and "source" in record.get("reference", {}).get(symbols[0], {})
        and set(decisions_of(record)) == set(DECISIONS)
    )


class Judge:
    """Decisions that wait for a price."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}  # by id: offset, ascending
        self._due: dict[tuple[str, str], list[tuple[float, int, Record]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> int | None:
        """Offset of the oldest decision that waits: a judge who begins there knows as much."""
        return next(iter(self._waiting.values()), None)

    def decided(self, offset: int, record: Record) -> None:
        """Take in a decision of this log's chain."""
        decision_id = str(record.get("decision_id"))
        if not waits(record) or decision_id in self._waiting:
            return
        symbol = record["symbols"][0]
        known = record["reference"][symbol]
        due = known["timestamp"] + record["horizon_s"]
        heapq.heappush(self._due.setdefault((symbol, known["source"]), []), (due, offset, record))
        self._waiting[decision_id] = offset
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def priced(self, offset: int, told: Price) -> list[Judged]:
        """Take in a price and return what it judges."""
        market, price = (told.data.symbol, told.source), told.data.price
        due = self._due.get(market)
        if due is None or not 0 < price < math.inf:
            return []
        judged = []
        while due and due[0][0] <= told.timestamp:
            _, _, record = heapq.heappop(due)
            if self._waiting.pop(record["decision_id"], None) is None:
                continue  # forgotten, as too many waited
            gain = price / record["reference"][market[0]]["price"] - 1
            judged.append(Judged(record, gain, told.timestamp, offset))
        if not due:
            del self._due[market]
        return judged
