"""Standing queries: what ten thousand of them cost a batch, and how soon a new one takes effect.

    python -m bench.standing [--items 50000] [--json]

The reference is one RE2 scan of the same batches in the same run: the cost of one subscriber who is
matched alone. `us_per_item` is what a node pays for each item that it takes in.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import corpus
from context.adapters.standing_compiler import StandingCompiler
from context.query import compile_matcher
from context.standing import StandingSet

BATCH = 1000
ROUNDS = 5
Batches = list[tuple[bytes, NDArray[np.int32]]]
Query = tuple[str, bool]  # text, regex


def batches(lines: list[bytes]) -> Batches:
    """Texts of `BATCH` lines with their line ends."""
    texts = [b"\n".join(lines[at : at + BATCH]) + b"\n" for at in range(0, len(lines), BATCH)]
    newlines = (np.frombuffer(text, dtype=np.uint8) == 10 for text in texts)
    return [
        (text, np.flatnonzero(found).astype(np.int32))
        for text, found in zip(texts, newlines, strict=True)
    ]


def literals(count: int) -> list[Query]:
    """Hashes, ids and prices, of which hardly any occurs."""
    rng, found = random.Random(1), []
    for _ in range(count):
        i = 10**7 + rng.randrange(10**8)
        price = f'"price":{rng.randrange(10**4, 10**5)}.{rng.randrange(10**4):04d}'
        found.append(rng.choice([corpus.hash_of(i)[:12], f"td-{i:010d}", price]))
    return [(text, False) for text in found]


def regexes(count: int) -> list[Query]:
    """Conditions on two fields, alternatives and digits, of which few lines match any."""
    rng, found = random.Random(2), []
    for _ in range(count):
        i, symbol = 10**7 + rng.randrange(10**8), rng.choice(corpus.SYMBOLS)
        hashes = corpus.hash_of(i)[:8], corpus.hash_of(i + 1)[:8]
        price = rng.randrange(100, 1000)
        found += [
            rf'"symbol":"{symbol}","price":{price}[0-9]{{2}}\.[0-9]*77\b',
            rf'td-00{i}.*"side":"buy"',
            rf"({hashes[0]}|{hashes[1]})[0-9a-f]*",
            rf'(?i)"model":"risk-net-\d+".*confidence":0\.{i % 10**4:04d}',
        ]
    return [(text, True) for text in found[:count]]


def frequent(count: int) -> list[Query]:
    """Patterns of which each matches about one line in a hundred."""
    rng = random.Random(3)
    return [
        (rf'"symbol":"{rng.choice(corpus.SYMBOLS)}".*"side":"buy"(}}|,"n":{i})', True)
        for i in range(count)
    ]


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took)


def filled(queries: list[Query]) -> tuple[StandingSet, float, float]:
    """The set of these queries, added at once, and seconds to add and to compile them."""
    standing = StandingSet()
    started = time.perf_counter()
    for query, regex in queries:
        standing.add(query, regex=regex, ignore_case=False)
    added = time.perf_counter()
    while work := standing.due():
        standing.install(work.run())
    return standing, added - started, time.perf_counter() - added


def cost(name: str, queries: list[Query], text: Batches, reference_s: float) -> dict[str, Any]:
    """One row: building the set and matching every batch."""
    standing, add_s, compile_s = filled(queries)
    hits = sum(len(lines) for batch in text for lines in standing.match(*batch).values())
    took = fastest(lambda: [standing.match(*batch) for batch in text])
    items = sum(len(ends) for _, ends in text)
    return {
        "queries": name,
        "add_s": round(add_s, 3),
        "compile_s": round(compile_s, 3),
        "scans": len(standing.levels),
        "MB_per_s": round(sum(len(t) for t, _ in text) / took / 1e6),
        "us_per_item": round(took / items * 1e6, 3),
        "beside_one_re2_scan": round(took / reference_s, 2),
        "hits_per_1000_items": round(hits / items * 1000, 1),
    }


def effect(queries: list[Query], text: Batches) -> dict[str, Any]:
    """How soon new queries take effect and are compiled while batches go on."""
    standing = filled(queries)[0]
    lock = threading.Lock()
    compiler = StandingCompiler(standing, lock)
    waits: list[float] = []
    compiled: list[float] = []
    took: list[float] = []
    for i in range(30):
        started = time.perf_counter()
        with lock:
            number = standing.add(
                rf"(td|sh|ai|calc)-000000{i:04d}\b", regex=True, ignore_case=False
            )
        compiler.wake()
        matched = False
        while not matched or all(number not in level.numbers for level in standing.levels):
            begun = time.perf_counter()
            with lock:
                matched = number in standing.match(*text[0])
            now = time.perf_counter()
            took.append(now - begun)
            if len(waits) == i and matched:
                waits.append(now - started)
        compiled.append(time.perf_counter() - started)
    return {
        "matched_after_ms": _spread(waits),
        "compiled_after_ms": _spread(compiled),
        "one_batch_ms": _spread(took),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    picks = {"p50": ordered[len(ordered) // 2], "max": ordered[-1]}
    return {name: round(value * 1e3, 2) for name, value in picks.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    text = batches(corpus.lines(asked.items))
    matcher = compile_matcher(r'"confidence":0\.9[0-9]', regex=True, ignore_case=False)
    reference_s = fastest(lambda: [matcher.hits(t, ends, 0, len(ends)) for t, ends in text])
    rows = [
        cost("none", [], text, reference_s),
        *(cost(f"{n} literals", literals(n), text, reference_s) for n in (100, 1000, 10_000)),
        *(cost(f"{n} regexes", regexes(n), text, reference_s) for n in (100, 1000)),
        cost("9000 + 1000", literals(9000) + regexes(1000), text, reference_s),
        cost("100 frequent", frequent(100), text, reference_s),
        cost("10 alone", [(rf"[g-z]{{{i + 20}}}", True) for i in range(10)], text, reference_s),
    ]
    one = {"us_per_item": round(reference_s / asked.items * 1e6, 3)}
    figures = {
        "one_re2_scan": one,
        "standing": rows,
        "a_new_query_beside_10000": effect(literals(9000) + regexes(1000), text),
    }
    if asked.json:
        print(json.dumps(figures))
        return
    print("one RE2 scan", one)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print("a new query beside 10,000:", figures["a_new_query_beside_10000"])


if __name__ == "__main__":
    main()
