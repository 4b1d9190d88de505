"""The mixed corpus of the benchmarks, seeded: 70% trades, 15% health, 10% tensors, 5% decisions."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any

BASES = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "DOT", "AVAX", "LTC", "LINK", "UNI", "ATOM")
SYMBOLS = [f"{base}/{quote}" for base in BASES for quote in ("USD", "EUR")]
MEANINGS = [
    "weighted covariance of order flow and price drift",
    "low rank projection of the hourly return tensor",
    "eigen decomposition of the cross asset correlation",
    "attention score between news embedding and price path",
]
REASONS = [
    "buy because {s} shows strong volume with tight spread",
    "hold since {s} momentum is weak and risk is near limit",
    "sell because {s} broke support on rising volume",
]


def items(count: int, seed: int = 20260101) -> Iterator[dict[str, Any]]:
    """Items of about 210 bytes, one millisecond apart."""
    rng = random.Random(seed)
    price = {symbol: 10 ** (1 + 4 * rng.random()) for symbol in SYMBOLS}
    at = 1767225600.0
    for i in range(count):
        at += rng.random() * 0.002
        made = {**_one(rng, i, price), "timestamp": round(at, 6)}
        yield {name: made[name] for name in ("type", "source", "timestamp", "data") if name in made}


def _one(rng: random.Random, i: int, price: dict[str, float]) -> dict[str, Any]:
    kind = rng.random()
    if kind < 0.70:
        symbol = SYMBOLS[int(len(SYMBOLS) * rng.random() ** 2)]
        price[symbol] *= 1 + (rng.random() - 0.5) * 1e-3
        data = {
            "event_id": f"td-{i:010d}",
            "symbol": symbol,
            "price": round(price[symbol], 4),
            "volume": round(rng.random() * 50, 6),
            "bid": round(price[symbol] * 0.9999, 4),
            "ask": round(price[symbol] * 1.0001, 4),
            "side": "buy" if rng.random() < 0.5 else "sell",
        }
        return {"type": "trading_data", "source": "binance", "data": data}
    if kind < 0.85:
        node = f"node-{rng.randrange(16):02d}"
        health = {key: round(rng.random() * 100, 2) for key in ("cpu", "mem", "disk")}
        data = {"event_id": f"sh-{i:010d}", "node": node, **health, "state": "healthy"}
        return {"type": "system_health", "source": node, "data": data}
    if kind < 0.95:
        data = {
            "calculation_id": f"calc-{i:010d}",
            "input_data": [round(rng.random(), 3) for _ in range(3)],
            "result": round(rng.random() * 10, 6),
            "hash_value": hash_of(i),
            "context_meaning": rng.choice(MEANINGS),
            "confidence": round(rng.random(), 2),
        }
        return {"type": "tensor_math", "data": data}
    data = {
        "event_id": f"ai-{i:010d}",
        "model": rng.choice(["gpt-ctx-1", "risk-net-4", "trend-lstm-2"]),
        "decision": rng.choice(["buy", "sell", "hold"]),
        "confidence": round(rng.random(), 2),
        "reasoning": rng.choice(REASONS).format(s=rng.choice(SYMBOLS)),
    }
    return {"type": "ai_decision", "source": "advisor", "data": data}


def hash_of(i: int) -> str:
    """Hash in item i where that is a tensor result; its first digits are a rare needle."""
    return hashlib.sha256(f"tensor-{i}".encode()).hexdigest()


def lines(count: int) -> list[bytes]:
    """The corpus as compact JSON, one item a line without newline."""
    return [json.dumps(item, separators=(",", ":")).encode() for item in items(count)]
