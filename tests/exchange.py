"""An exchange on loopback that speaks the part of Binance's spot API that a broker needs.

It checks the signature of every private call, executes limit orders against one price a symbol, and
remembers every order that reached it. While `answering` is not set, new orders are executed, but
whoever sent them does not hear of it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

KEY, SECRET = "test-key", "test-secret"
Json = dict[str, Any]
MARKET = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "baseAssetPrecision": 8,
    "quoteAssetPrecision": 8,
    "orderTypes": ["LIMIT", "MARKET"],
    "isSpotTradingAllowed": True,
    "permissions": ["SPOT"],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1e6", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9e3", "stepSize": "0.00001"},
    ],
}


class Exchange:
    """The exchange; `price` is where it trades now."""

    def __init__(self, price: str = "100") -> None:
        self.price = Decimal(price)
        self.received: list[Json] = []  # new orders, as sent
        self.orders: dict[str, Json] = {}  # by client id
        self.trades: list[Json] = []
        self.answering = threading.Event()
        self.answering.set()
        self.refuse: Json | None = None
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.exchange = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()

    def place(self, sent: Json) -> tuple[int, Json]:
        """A new order: a limit order that is executed at once, or cancelled."""
        with self._lock:
            self.received.append(sent)
            if self.refuse:
                return 400, self.refuse
            client_id, price = sent["newClientOrderId"], Decimal(sent["price"])
            if client_id in self.orders:
                return 400, {"code": -2010, "msg": "Duplicate order sent."}
            fits = price >= self.price if sent["side"] == "BUY" else price <= self.price
            qty = Decimal(sent["quantity"]) if fits else Decimal(0)
            order = {
                "symbol": sent["symbol"],
                "orderId": next(self._ids),
                "clientOrderId": client_id,
                "price": sent["price"],
                "origQty": sent["quantity"],
                "executedQty": str(qty),
                "cummulativeQuoteQty": str(qty * self.price),
                "status": "FILLED" if fits else "EXPIRED",
                "timeInForce": sent["timeInForce"],
                "type": "LIMIT",
                "side": sent["side"],
                "time": int(time.time() * 1000),
                "updateTime": int(time.time() * 1000),
                "isWorking": False,
            }
            self.orders[client_id] = order
            if fits:
                self.trades.append(self._trade(order, qty))
        return 200, order

    def _trade(self, order: Json, qty: Decimal) -> Json:
        return {
            "symbol": order["symbol"],
            "id": order["orderId"],
            "orderId": order["orderId"],
            "price": str(self.price),
            "qty": str(qty),
            "quoteQty": str(qty * self.price),
            "commission": str(qty * self.price / 1000),
            "commissionAsset": "USDT",
            "time": order["time"],
            "isBuyer": order["side"] == "BUY",
            "isMaker": False,
            "isBestMatch": True,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    exchange: Exchange

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked was killed: that is what the tests do."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    @property
    def exchange(self) -> Exchange:
        return self.server.exchange

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        match split.path:
            case "/api/v3/exchangeInfo":
                limits = {"timezone": "UTC", "serverTime": 0, "rateLimits": []}
                self.answer(200, {**limits, "symbols": [MARKET]})
            case "/api/v3/order" if wish := self.signed(split.query):
                found = self.exchange.orders.get(wish["origClientOrderId"])
                missing = {"code": -2013, "msg": "Order does not exist."}
                self.answer(*((200, found) if found else (400, missing)))
            case "/api/v3/myTrades" if wish := self.signed(split.query):
                trades = self.exchange.trades
                self.answer(200, [t for t in trades if str(t["orderId"]) == wish["orderId"]])
            case _:
                self.answer(404, {"code": -1, "msg": f"unknown: {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        sent = self.signed(body)
        if urlsplit(self.path).path != "/api/v3/order" or not sent:
            self.answer(404, {"code": -1, "msg": f"unknown: {self.path}"})
            return
        answer = self.exchange.place(sent)
        self.exchange.answering.wait()
        self.answer(*answer)

    def do_DELETE(self) -> None:
        self.answer(400, {"code": -2011, "msg": "Unknown order sent."})  # all are closed at once

    def signed(self, text: str) -> Json:
        """The parameters, where key, signature and time are right; else {}."""
        signature = dict(parse_qsl(text)).get("signature", "")
        signed = text.removesuffix(f"&signature={signature}")
        right = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
        wish = dict(parse_qsl(signed))
        recent = abs(time.time() * 1000 - float(wish.get("timestamp", 0))) < 5000
        known = self.headers.get("X-MBX-APIKEY") == KEY
        return wish if known and recent and hmac.compare_digest(right, signature) else {}

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # whoever asked was killed
