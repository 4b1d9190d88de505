"""How long a start takes to know what outcomes taught: from all of them, and from the snapshot.

    python -m bench.recall [--outcomes 100000] [--json]

Outcomes of decisions by five models on twenty symbols are stored as a node stores them; then they
are folded, and once more with the snapshot that the first time has left. Both must know the same.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from ai_bridge.consensus import pool
from ai_bridge.ledger import Ledger
from ai_bridge.ports import Question
from ai_bridge.prediction import DECISIONS, choose
from ai_bridge.record import decision_record, outcome_event
from ai_bridge.snapshot import state_of
from ai_bridge.votes import Vote
from bench.progress import progress
from server.agent.learned import OUTCOME, Learned
from shared_storage.adapters.sqlite import SqliteStateStore

MODELS, SYMBOLS, DIFFERENT = 5, 20, 2000


def events() -> list[dict[str, Any]]:
    """Outcomes to store, each many times under other names."""
    chance, ledger, made = random.Random(1), Ledger(), list[dict[str, Any]]()
    configured = {f"m{n}": 1.0 for n in range(MODELS)}
    for number in range(DIFFERENT):
        votes = [ledger.calibrated(_vote(name, chance)) for name in configured]
        symbols = (f"S{chance.randrange(SYMBOLS)}",)
        pooled = ledger.pooled(votes, configured, symbols, "learned")
        record = decision_record(
            Question(symbols, {}, now=float(number)),
            pool(votes, pooled),
            votes,
            decision_id=f"d{number}",
            context_id=None,
            term=1,
            pooled=pooled,
            cover=ledger.conformal.cover(0.9),
        )
        event = outcome_event(record, {"outcome": chance.choice(DECISIONS)})
        ledger.apply(event, event["outcome"])
        made.append(event)
    return made


def _vote(name: str, chance: random.Random) -> Vote:
    parts = [chance.random() + 0.1 for _ in DECISIONS]
    said = {each: part / sum(parts) for each, part in zip(DECISIONS, parts, strict=True)}
    decision = choose(said)
    return Vote(model=name, status="ok", decision=decision, confidence=said[decision],
                distribution=said, reasoning="a reason of some words")  # fmt: skip


def store(path: Path, count: int) -> None:
    """Write a state file with so many outcomes."""
    SqliteStateStore(path).close()
    made, db = events(), sqlite3.connect(path)
    with db, progress("storing", count) as step:
        for number in range(count):
            event = {**made[number % DIFFERENT], "decision_id": f"d{number:016x}"}
            row = (OUTCOME, event["decision_id"], 1, msgspec.json.encode(event), 0.0, number + 1)
            db.execute("INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", row)
            step(1)
    db.close()


def measure(count: int) -> dict[str, Any]:
    """Store, fold, start again."""
    with tempfile.TemporaryDirectory(prefix="context-bench-") as folder:
        place = Path(folder)
        store(place / "state.db", count)
        state, took, known = SqliteStateStore(place / "state.db"), [], []
        for _ in range(2):
            started = time.perf_counter()
            kept = Learned(place / "learned", state, code="c", epoch="e")
            ledger = kept.recall()
            took.append(time.perf_counter() - started)
            kept.settle()
            known.append(msgspec.msgpack.encode(state_of(ledger)))
        assert known[0] == known[1]
        assert ledger.outcomes == count
        size = sum(path.stat().st_size for path in (place / "learned").iterdir())
        state.close()
    return {"outcomes": count, "folded_s": took[0], "snapshot_s": took[1], "snapshot_bytes": size}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--outcomes", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.outcomes)
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:16} {value:,.2f}" if isinstance(value, float) else f"{name:16} {value:,}")


if __name__ == "__main__":
    main()
