"""REST calls on trading."""

from __future__ import annotations

from ai_bridge.trading.requests import StartRequest
from server.api.operations import BEFORE, LIMIT, Operation, Param

OPERATIONS = (
    Operation(
        "GET",
        "/api/context/trading",
        "Session, positions, profit and loss, open orders, and decisions not followed",
        call="trading",
    ),
    Operation("GET", "/api/context/trading/modes", "All modes", call="trading_modes"),
    Operation(
        "POST",
        "/api/context/trading/start",
        "Begin to act on decisions in a mode",
        call="trading_start",
        body=StartRequest,
        answers={201: "it trades", 400: "a field is wrong", 409: "something stands in the way"},
    ),
    Operation(
        "POST",
        "/api/context/trading/stop",
        "End trading: open orders are cancelled, positions stay",
        call="trading_stop",
    ),
    Operation(
        "GET",
        "/api/context/trading/entries",
        "What trading wrote into the log, newest first: starts, orders, fills, stops",
        call="trading_entries",
        params=(LIMIT, BEFORE, Param("symbol", "only on it")),
    ),
)
