"""Which node may answer a call: told by the call itself, and by two options of its address.

`consistency=leader` asks for what the leader has; `min_cursor=CURSOR` for a copy that holds at
least this item. Both hold for every call, and are gone from the address when the call sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, urlencode

from context.errors import InvalidRequest
from server.api.operations import Operation


class Place(Enum):
    """Where a call is answered in a cluster."""

    ANYWHERE = "anywhere"  # from a node's own copy
    LEADER = "leader"  # it writes, or asks for what only the leader knows
    RATHER_LEADER = "rather the leader"  # which knows more; else from a node's own copy
    OPEN = "open"  # an answer without a known end: always of this node


# They send a body, yet change nothing that other nodes should know of.
_READS = frozenset({"search", "tensors_lookup", "decision_replay", "ticket_issue"})
# How the leader's own work goes; the other nodes know its results alone.
_OF_THE_LEADER = frozenset(
    {"webhooks", "webhook", "webhook_dead_letters", "backtests", "backtest_one", "backtest_plot"}
)
_MORE_AT_THE_LEADER = frozenset({"models"})  # it asks them; their weights are everywhere
_OPEN = frozenset({"/api/context/stream", "/api/context/poll", "/api/context/export"})
OPTIONS = ("min_cursor", "consistency")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks of the node that answers it."""

    leader: bool = False
    min_cursor: str = ""


NO_WISH = Wish()


class Routes:
    """Finds the place and the name of a call."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._exact: dict[tuple[str, str], tuple[Place, str]] = {}
        self._others: list[tuple[str, re.Pattern[str], tuple[Place, str]]] = []
        for each in operations:
            found = (place_of(each), each.endpoint)
            if "<" in each.path:
                pattern = re.sub(r"<(?:\w+:)?\w+>", "[^/]+", each.path)
                self._others.append((each.method, re.compile(pattern), found))
            else:
                self._exact[each.method, each.path] = found

    def find(self, method: str, path: str) -> tuple[Place, str]:
        """Place and endpoint; unknown calls are answered, and refused, where they come."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for known, pattern, place in self._others:
            if known == method and pattern.fullmatch(path):
                return place
        return Place.ANYWHERE, "none"


def place_of(operation: Operation) -> Place:
    """Where a call is answered."""
    if operation.path in _OPEN:
        return Place.OPEN
    writes = operation.method != "GET" and operation.call not in _READS
    if writes or operation.call in _OF_THE_LEADER:
        return Place.LEADER
    return Place.RATHER_LEADER if operation.call in _MORE_AT_THE_LEADER else Place.ANYWHERE


def take_wish(environ: dict[str, Any]) -> Wish:
    """The routing options of a request, taken out of its address. Raises InvalidRequest."""
    query = environ.get("QUERY_STRING")
    if not query or ("min_cursor" not in query and "consistency" not in query):
        return NO_WISH
    pairs = parse_qsl(query, keep_blank_values=True)
    asked = {name: value for name, value in pairs if name in OPTIONS}
    environ["QUERY_STRING"] = urlencode([pair for pair in pairs if pair[0] not in OPTIONS])
    consistency = asked.get("consistency", "leader")
    if consistency != "leader":
        raise InvalidRequest(f"consistency must be `leader`, got {consistency[:40]!r}")
    return Wish("consistency" in asked, asked.get("min_cursor", ""))
