"""The brokers that accounts stand at. An account's name begins with its kind of broker:

paper:USD                the paper broker
sandbox:binance:USDT     an exchange's sandbox
live:binance:USDT        an exchange, with real money
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ai_bridge.trading.entries import Start
from ai_bridge.trading.errors import TradingRefused
from ai_bridge.trading.ports import Broker
from server.agent.trading_market import Market
from server.agent.trading_paper import PaperBroker
from server.config import Settings


class Brokers:
    """One broker for each kind of account, made when it is needed."""

    def __init__(
        self, settings: Settings, market: Market, session: Callable[[], Start | None]
    ) -> None:
        self._settings = settings
        self._paper = PaperBroker(market, session)

    def of(self, account: str) -> Broker:
        """The broker of an account."""
        return self._paper

    async def open(self, account: str, symbols: Sequence[str]) -> None:
        """Make sure that an account's broker is there; raises BrokerUnavailable, TradingRefused."""
        if not account.startswith("paper:"):
            raise TradingRefused("this version trades on paper only")

    async def close(self) -> None:
        """Let go of all."""
        await self._paper.close()
