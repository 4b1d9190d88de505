"""Calls on trading: start, stop, how it stands, what it wrote."""

from __future__ import annotations

import secrets
import time
from decimal import Decimal
from typing import Any

import msgspec

from ai_bridge.errors import InvalidRequest
from ai_bridge.requests import parse
from ai_bridge.trading.entries import TYPE, Start
from ai_bridge.trading.errors import TradingRefused
from ai_bridge.trading.modes import Mode, all_modes, limits_of
from ai_bridge.trading.requests import StartRequest, confirmation, currency, quote_of
from ai_bridge.trading.showing import shown
from context.filter import Filter
from context.request import parse_latest
from context.search import latest
from server.agent import answers
from server.agent.context_calls import body_json
from server.agent.ipc_server import Call
from server.agent.node import Node
from server.agent.trader import Trader
from server.agent.trading_ledger import control
from server.config import Settings
from server.ipc import Answer, Request

MOST_SYMBOLS = 10  # that a session takes by itself


class Trading:
    """The calls on one node's trader."""

    def __init__(self, node: Node, trader: Trader) -> None:
        self._trader = trader
        self._modes = all_modes(node.settings.trading_modes)

    def calls(self) -> dict[str, Call]:
        """The calls by name."""
        return {
            "trading": self.trading,
            "trading_modes": self.modes,
            "trading_start": self.start,
            "trading_stop": self.stop,
            "trading_entries": self.entries,
        }

    async def trading(self, node: Node, request: Request) -> Answer:
        """GET /api/context/trading."""
        if not node.leadership.leading:
            await self._trader.look()
        return answers.json(await self._shown(node))

    async def modes(self, node: Node, request: Request) -> Answer:
        """GET /api/context/trading/modes."""
        return answers.json({"modes": msgspec.to_builtins(self._modes)})

    async def start(self, node: Node, request: Request) -> Answer:
        """POST /api/context/trading/start: durable before it is acknowledged."""
        asked = parse(body_json(request), StartRequest)
        rules = self._mode(asked)
        symbols, quote = await self._symbols(asked)
        kind = _kind(node.settings, asked)
        _, version = await control(node)
        capital = Decimal(str(node.settings.trading_capital))
        await self._trader.begin(
            Start(
                at=time.time(),
                term=node.term,
                session=f"t{secrets.token_hex(6)}",
                mode=asked.mode,
                rules=rules,
                limits=limits_of(rules, capital),
                broker=asked.broker,
                account=f"{kind}:{quote}",
                quote=quote,
                capital=capital,
                symbols=symbols,
                live=asked.live,
                control=version,
            )
        )
        return answers.json(await self._shown(node), 201)

    async def stop(self, node: Node, request: Request) -> Answer:
        """POST /api/context/trading/stop: open orders are cancelled, positions stay."""
        await self._trader.end()
        return answers.json(await self._shown(node))

    async def entries(self, node: Node, request: Request) -> Answer:
        """GET /api/context/trading/entries."""
        asked = parse_latest(dict(request.params["args"]))
        page = await node.scan(
            latest,
            node.snapshot(),
            Filter(types=frozenset({TYPE}), symbol=asked.symbol),
            limit=asked.limit,
            before=asked.before,
            epoch=node.log.epoch,
            clock=time.monotonic,
        )
        items = map(msgspec.json.decode, page["items"])
        ours = [each for each in items if _link(each["data"]).get("epoch") == node.log.epoch]
        return answers.json(
            {"entries": [{**each["data"], "id": each["id"]} for each in ours], "next": page["next"]}
        )

    async def _shown(self, node: Node) -> dict[str, Any]:
        book = self._trader.book
        symbols = {name for account in book.accounts.values() for name in account.positions}
        prices = await self._trader.market.prices(symbols)
        stopped, _ = await control(node)
        exchange = node.settings.trading_exchange
        return {
            **shown(book, prices),
            "emergency_stop": stopped,
            "confirmation": confirmation(exchange) if exchange else None,
            "passes": list(self._trader.passes)[::-1],
        }

    def _mode(self, asked: StartRequest) -> Mode:
        mode = self._modes.get(asked.mode)
        if mode is None:
            message = f"mode must be one of {', '.join(self._modes)}, got {asked.mode!r}"
            raise _wrong("mode", message)
        if asked.ask_every_s is not None:
            mode = msgspec.structs.replace(mode, ask_every_s=asked.ask_every_s)
        return mode

    async def _symbols(self, asked: StartRequest) -> tuple[list[str], str]:
        """What is traded, and in which currency."""
        if asked.symbols:
            return asked.symbols, quote_of(asked.symbols, asked.quote)
        lately = await self._trader.market.symbols(asked.quote)
        if not lately:
            priced = f" in {asked.quote}" if asked.quote else ""
            raise InvalidRequest(f"there are no prices{priced} yet: name the symbols to trade")
        quote = asked.quote or currency(lately[0])
        same = [symbol for symbol in lately if currency(symbol) == quote][:MOST_SYMBOLS]
        return same, quote_of(same, asked.quote)


def _kind(settings: Settings, asked: StartRequest) -> str:
    """How the account's name begins; raises where its broker may not be used."""
    exchange = settings.trading_exchange
    if asked.broker == "paper":
        if asked.live:
            raise _wrong("broker", "real money needs the broker ccxt")
        return "paper"
    if not exchange:
        raise _wrong("broker", "no exchange is set on this node: trading_exchange")
    if not asked.live:
        return f"sandbox:{exchange}"
    if not settings.live_trading:
        raise TradingRefused("this node was not started with --live-trading")
    if asked.confirm != confirmation(exchange):
        raise TradingRefused(f"real money needs `confirm` to be: {confirmation(exchange)}")
    return f"live:{exchange}"


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, [{"index": 0, "field": field, "message": message}])


def _link(data: dict[str, Any]) -> dict[str, Any]:
    link = data.get("chain")
    return link if isinstance(link, dict) else {}
