"""The book as people and programs see it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from ai_bridge.trading.book import Account, Book, Working
from ai_bridge.trading.limits import Prices
from ai_bridge.trading.money import ZERO, value_of


def shown(book: Book, prices: Prices) -> dict[str, Any]:
    """The session, its account and its orders; amounts are text. What is zero by rule is there."""
    session, stopped = book.session, book.stopped
    return {
        "trading": session is not None,
        "mode": session.mode if session else None,
        "broker": session.broker if session else None,
        "live": bool(session and session.live),
        "session": session.session if session else None,
        "since": session.at if session else None,
        "symbols": session.symbols if session else [],
        "limits": msgspec.to_builtins(session.limits) if session else None,
        "account": session.account if session else None,
        "last_stop": {"at": stopped.at, "reason": stopped.reason, "detail": stopped.detail}
        if stopped
        else None,
        "accounts": [_account(name, each, prices) for name, each in book.accounts.items()],
        "open_orders": [_working(each) for each in book.open.values()],
        "orders": book.orders,
        "fills": book.fills,
    }


def _account(name: str, account: Account, prices: Prices) -> dict[str, Any]:
    equity = account.equity(prices)
    cost = sum((position.cost for position in account.positions.values()), ZERO)
    unrealised = account.held(prices) - cost
    return {
        "account": name,
        "capital": _text(account.capital),
        "cash": _text(account.cash),
        "equity": _text(equity),
        "profit": _text(equity - account.capital),
        "realised": _text(account.realised),
        "unrealised": _text(unrealised),
        "fees": _text(account.fees),
        "day_profit": _text(equity - account.day_equity),
        "drawdown": _text(max(ZERO, account.peak - equity)),
        "positions": [_position(symbol, account, prices) for symbol in sorted(account.positions)],
    }


def _position(symbol: str, account: Account, prices: Prices) -> dict[str, Any]:
    position = account.positions[symbol]
    price = prices.get(symbol) or account.prices[symbol]
    value = value_of(position.qty, price)
    return {
        "symbol": symbol,
        "qty": _text(position.qty),
        "average": _text((position.cost / position.qty).quantize(price)),
        "price": _text(price),
        "value": _text(value),
        "unrealised": _text(value - position.cost),
    }


def _working(working: Working) -> dict[str, Any]:
    order = working.order
    return {
        "client_id": order.client_id,
        "decision_id": order.decision_id,
        "symbol": order.symbol,
        "side": order.side,
        "qty": _text(order.qty),
        "limit": _text(order.limit),
        "filled": _text(working.qty),
        "at": order.at,
        "expires_at": order.expires_at,
    }


def _text(value: Decimal) -> str:
    """Without zeros that say nothing, and never with an exponent."""
    return f"{value.normalize() + 0:f}"
