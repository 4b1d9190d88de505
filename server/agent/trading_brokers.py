"""The brokers that accounts stand at. An account's name begins with its kind of broker:

paper:USD                the paper broker
sandbox:binance:USDT     an exchange's sandbox
live:binance:USDT        an exchange, with real money
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from ai_bridge.adapters.broker_ccxt import CcxtBroker, CcxtConfig
from ai_bridge.trading.entries import Start
from ai_bridge.trading.errors import BrokerUnavailable
from ai_bridge.trading.ports import Broker
from server.agent.trading_market import Market
from server.agent.trading_paper import PaperBroker
from server.config import Settings


def reachable(settings: Settings) -> list[str]:
    """Where this node could trade: beginnings of accounts, for its capabilities."""
    found = ["paper"]
    if settings.trading_exchange and find_spec("ccxt"):
        found.append(f"sandbox:{settings.trading_exchange}")
        if settings.live_trading:
            found.append(f"live:{settings.trading_exchange}")
    return found


class Brokers:
    """One broker for each kind of account, made when it is needed."""

    def __init__(
        self, settings: Settings, market: Market, session: Callable[[], Start | None]
    ) -> None:
        self._settings = settings
        self._paper = PaperBroker(market, session)
        self._exchanges: dict[str, CcxtBroker] = {}

    def of(self, account: str) -> Broker:
        """The broker of an account; raises BrokerUnavailable where the settings have no such."""
        return self._paper if account.startswith("paper:") else self._exchange(account)

    async def open(self, account: str, symbols: Sequence[str]) -> None:
        """Make sure that an account's broker is there; raises BrokerUnavailable, TradingRefused."""
        if not account.startswith("paper:"):
            await self._exchange(account).open(symbols)

    async def close(self) -> None:
        """Let go of all."""
        for exchange in self._exchanges.values():
            await exchange.close()

    def _exchange(self, account: str) -> CcxtBroker:
        kind, name, _ = account.split(":")
        settings, live = self._settings, kind == "live"
        if name != settings.trading_exchange:
            raise BrokerUnavailable(f"{account} stands at {name}, which this node is not set to")
        if live and not settings.live_trading:
            raise BrokerUnavailable("this node was not started with --live-trading")
        if kind not in self._exchanges:
            self._exchanges[kind] = CcxtBroker(
                CcxtConfig(
                    exchange=name,
                    live=live,
                    key=settings.trading_key,
                    secret=settings.trading_secret,
                    password=settings.trading_password,
                    url="" if live else settings.trading_exchange_url,
                )
            )
        return self._exchanges[kind]
