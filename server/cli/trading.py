"""Starting and stopping to trade, and what is shown of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from context.client import Client
from server.cli.render import safe, table
from server.cli.screen import Screen

DONE, FAILED, WRONG_ARGUMENTS = 0, 1, 2
Json = Mapping[str, Any]
_ACCOUNT = ("account", "equity", "profit", "day_profit", "realised", "unrealised", "fees", "cash")
_POSITION = ("symbol", "qty", "average", "price", "value", "unrealised")
_ORDER = ("client_id", "symbol", "side", "qty", "limit", "filled")


def start(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """Begin to trade; with real money only after a confirmation typed on a terminal."""
    wish = {
        "mode": args.start_trading,
        "broker": args.broker or ("ccxt" if args.live_trading else "paper"),
        "symbols": args.symbol.split(",") if args.symbol else None,
        "quote": args.quote,
    }
    if args.live_trading:
        confirmed = _confirmed(client, screen, args.start_trading)
        if confirmed is None:
            return WRONG_ARGUMENTS
        wish |= {"live": True, "confirm": confirmed}
    document = client.start_trading(**wish)
    screen.show(document, trading_view(document))
    return DONE


def stop(client: Client, screen: Screen, args: argparse.Namespace) -> int:
    """End trading; open orders are cancelled, positions stay."""
    document = client.stop_trading()
    screen.show(document, trading_view(document))
    return DONE


def _confirmed(client: Client, screen: Screen, mode: str) -> str | None:
    """What was typed, where it is what the node wants; None where it is not."""
    phrase = client.trading()["confirmation"]
    if phrase is None:
        screen.complain("the node has no exchange: set trading_exchange")
        return None
    if not sys.stdin.isatty():
        screen.complain("real money needs a confirmation typed on a terminal")
        return None
    screen.err.print(Text(f"The mode {safe(mode)} will trade with REAL MONEY.", "bold red"))
    screen.err.print(Text(f"To go on, type: {safe(phrase)}"))
    if sys.stdin.readline().strip() == phrase:
        return str(phrase)
    screen.complain("that is not the confirmation; nothing was started")
    return None


def trading_line(document: Json) -> Text:
    """One line: the mode and the profit, or why nothing trades."""
    if not document["trading"]:
        last = document["last_stop"]
        why = f" (stopped: {last['reason'].replace('_', ' ')})" if last else ""
        return Text(f"not trading{why}")
    account = next(a for a in document["accounts"] if a["account"] == document["account"])
    money = Text("REAL MONEY", "bold red") if document["live"] else Text(document["broker"])
    told = (
        f" profit {account['profit']}, today {account['day_profit']}, "
        f"{len(account['positions'])} positions, {len(document['open_orders'])} open orders"
    )
    head = f"trading {safe(document['mode'])} on {safe(account['account'])} ("
    return Text.assemble((head, "bold green"), money, ")", told)


def trading_view(document: Json) -> Group:
    """The line, accounts, positions and open orders."""
    parts: list[RenderableType] = [trading_line(document)]
    for account in document["accounts"]:
        parts.append(_rows([account], _ACCOUNT))
        if account["positions"]:
            parts.append(_rows(account["positions"], _POSITION))
    if document["open_orders"]:
        parts.append(_rows(document["open_orders"], _ORDER))
    return Group(*parts)


def _rows(documents: Iterable[Json], columns: tuple[str, ...]) -> RenderableType:
    return table(columns, ([Text(safe(each[name])) for name in columns] for each in documents))
