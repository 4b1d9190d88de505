"""The process that talks to an exchange: reads requests from standard input, a JSON line each.

The first line is the configuration, keys included, so that they stand in no command line. Requests
are done one after the other; each is answered by one line. The process ends with its parent.
It imports ccxt, which the agent never does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from decimal import Decimal
from queue import SimpleQueue
from typing import Any

import ccxt
import msgspec

TIMEOUT_MS = 5000
WINDOW_MS = 5000  # a request that takes longer on its way is refused by the exchange
_REFUSED = (
    ccxt.InvalidOrder,
    ccxt.InsufficientFunds,
    ccxt.BadRequest,
    ccxt.BadSymbol,
    ccxt.AuthenticationError,
    ccxt.NotSupported,
)
Json = dict[str, Any]


class Refused(Exception):
    """Certainly not done."""


class Exchange:
    """One account at one exchange."""

    def __init__(self, config: Json) -> None:
        self._exchange = getattr(ccxt, config["exchange"])(
            {
                "apiKey": config["key"],
                "secret": config["secret"],
                "password": config["password"],
                "timeout": TIMEOUT_MS,
                "enableRateLimit": True,
                "options": {
                    "defaultType": "spot",
                    "fetchMarkets": {"types": ["spot"]},
                    "recvWindow": WINDOW_MS,
                },
            }
        )
        if not config["live"]:
            self._exchange.set_sandbox_mode(True)
            if config["url"]:
                urls = self._exchange.urls
                urls["api"] = _moved(urls["api"], config["url"])

    def open(self, symbols: list[str]) -> None:
        """Load the markets; refuses what cannot be traded there."""
        markets = self._exchange.load_markets()
        for symbol in symbols:
            if symbol not in markets or not markets[symbol].get("spot", True):
                raise Refused(f"{symbol} is no spot market of {self._exchange.id}")
        for needed in ("createOrder", "fetchOrder", "cancelOrder"):
            if not self._exchange.has.get(needed):
                raise Refused(f"{self._exchange.id} has no {needed}")

    def place(self, order: Json) -> None:
        """A limit order, immediate or cancelled: nothing of it rests there unattended."""
        if time.time() > order["before"]:
            raise Refused("too old to be sent")
        self._exchange.load_markets()
        symbol, side = order["symbol"], order["side"]
        self._exchange.create_order(
            symbol,
            "limit",
            side,
            float(self._exchange.amount_to_precision(symbol, order["qty"])),
            float(self._limit(symbol, side, order["limit"])),
            {"clientOrderId": order["client_id"], "timeInForce": "IOC"},
        )

    def look(self, client_id: str, symbol: str) -> Json:
        """How an order is: sums so far, fees once it is closed."""
        try:
            found = self._find(client_id, symbol)
        except ccxt.OrderNotFound:
            return {"client_id": client_id, "status": "unknown"}
        if found["status"] == "open":
            return {"client_id": client_id, "status": "working"}
        qty, value = _number(found["filled"]), _number(found["cost"])
        fee, fee_qty = self._fees(found, symbol) if qty else (Decimal(0), Decimal(0))
        told = {"qty": qty, "value": value, "fee": fee, "fee_qty": fee_qty}
        return {
            "client_id": client_id,
            "status": "rejected" if found["status"] == "rejected" else "closed",
            **{name: str(number) for name, number in told.items()},
        }

    def cancel(self, client_id: str, symbol: str) -> None:
        """Cancel what is left."""
        try:
            self._exchange.cancel_order(self._find(client_id, symbol)["id"], symbol)
        except ccxt.OrderNotFound:
            return

    def _find(self, client_id: str, symbol: str) -> Json:
        self._exchange.load_markets()
        found: Json = self._exchange.fetch_order(None, symbol, {"clientOrderId": client_id})
        return found

    def _limit(self, symbol: str, side: str, limit: str) -> Decimal:
        """The limit in the market's steps, never worse than it was."""
        rounded = Decimal(self._exchange.price_to_precision(symbol, limit))
        step = Decimal(str(self._exchange.market(symbol)["precision"]["price"]))
        if side == "buy" and rounded > Decimal(limit):
            return rounded - step
        if side == "sell" and rounded < Decimal(limit):
            return rounded + step
        return rounded

    def _fees(self, order: Json, symbol: str) -> tuple[Decimal, Decimal]:
        """Fees in the currency, and those taken out of what was bought; others are not counted."""
        fees = order.get("fees") or []
        if not fees and self._exchange.has.get("fetchOrderTrades"):
            trades = self._exchange.fetch_order_trades(order["id"], symbol)
            fees = [trade["fee"] for trade in trades if trade.get("fee")]
        base, quote = symbol.split("/")
        of = {
            name: sum((_number(fee["cost"]) for fee in fees if fee["currency"] == name), Decimal(0))
            for name in (base, quote)
        }
        return of[quote], of[base]


def _moved(urls: Any, address: str) -> Any:
    """The same paths at another address."""
    if isinstance(urls, dict):
        return {name: _moved(each, address) for name, each in urls.items()}
    path = urls.split("://", 1)[-1].partition("/")[2]
    return f"{address}/{path}"


def _number(value: object) -> Decimal:
    return Decimal(str(value or 0))


def answer(exchange: Exchange, request: Json) -> Json:
    """Do one request and tell what came of it: `error` is `refused` or `unknown`."""
    told: Json = {"id": request["id"]}
    try:
        told["result"] = getattr(exchange, request["do"])(**request["with"])
    except (Refused, *_REFUSED) as exc:
        # Placed before: what became of it has to be looked up.
        twice = isinstance(exc, ccxt.DuplicateOrderId) or "duplicate" in str(exc).lower()
        told |= {"error": "unknown" if twice else "refused", "detail": _shown(exc)}
    except ccxt.BaseError as exc:
        told |= {"error": "unknown", "detail": _shown(exc)}
    return told


def _shown(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"[:500]


def main() -> None:
    """Serve until standard input ends."""
    config = msgspec.json.decode(sys.stdin.buffer.readline())
    exchange, requests = Exchange(config), SimpleQueue[bytes]()

    def read() -> None:
        for line in sys.stdin.buffer:
            requests.put(line)
        os._exit(0)  # whatever is under way: the parent is gone and finds out by asking again

    threading.Thread(target=read, daemon=True).start()
    while True:
        told = answer(exchange, msgspec.json.decode(requests.get()))
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
