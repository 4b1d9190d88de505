"""The call on how the consensus does: weights, regret and its bound, reliability, coverage."""

from __future__ import annotations

from typing import Any

from context.errors import NotFound
from server.agent import answers
from server.agent.node import Node
from server.ipc import Answer, Request

MOST_SYMBOLS = 100  # those with the most outcomes


async def consensus(node: Node, request: Request) -> Answer:
    """GET /api/context/ai/consensus."""
    wanted = request.params["args"].get("symbol")
    bridge, ledger = node.bridge, node.bridge.ledger
    books = ledger.regrets.symbols
    if wanted is not None and wanted not in books:
        raise NotFound(f"no decision on {wanted[:80]!r} has been judged")
    ranked = sorted(books, key=lambda symbol: (-books[symbol].rounds, symbol))
    names = [wanted] if wanted is not None else ranked[:MOST_SYMBOLS]
    return answers.json(
        {
            "rule": bridge.rule,
            "coverage": bridge.coverage,
            "outcomes": ledger.outcomes,
            "weights": {name: ledger.weight(name) for name in bridge.names()},
            "total": ledger.regrets.report(),
            "symbols": [_symbol(node, name) for name in names],
            "calibration": ledger.consensus.as_dict(),
            "coverages": ledger.conformal.as_list(),
        }
    )


def _symbol(node: Node, symbol: str) -> dict[str, Any]:
    """One symbol: by what a decision on it would be weighed now, and how those before did."""
    bridge, ledger = node.bridge, node.bridge.ledger
    return {
        "symbol": symbol,
        "weights": ledger.parts(symbol, bridge.configured()),
        "leaning": ledger.weights.leaning(symbol),
        **ledger.regrets.report(symbol),
    }


CALLS = {"consensus": consensus}
