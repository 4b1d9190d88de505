"""Search by meaning beside its limits: numpy's exact answer, the model alone, text search.

    python -m bench.semantic [--vectors 100000] [--items 100000] [--json]

Vectors are made like those of sentences: 1,000 topics with noise around each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
import torch

from bench import corpus
from bench.ingest import post_all
from bench.node import Node, running
from context.semantic_text import Passage, template_of
from server.semantic.client import SemanticClient, SemanticUnavailable
from server.semantic.encoder import Encoder
from server.semantic.packages import model_folder
from server.semantic.store import DIMENSIONS, VectorStore
from server.semantic.wish import Wish
from server.semantic.worker import TEXTS_AT_ONCE

QUERIES = 100
TOP = 10
PATIENCE_S = 300.0


def median_ms(work: Callable[[Any], Any], inputs: Any) -> tuple[float, list[Any]]:
    """Median milliseconds of one call, and all results."""
    took, results = [], []
    for each in inputs:
        started = time.perf_counter()
        results.append(work(each))
        took.append((time.perf_counter() - started) * 1e3)
    return statistics.median(took), results


def store(count: int) -> dict[str, Any]:
    """Inserting and searching vectors, beside numpy on an array in memory."""
    chance = np.random.default_rng(1)
    topics = chance.normal(size=(1000, DIMENSIONS)).astype(np.float32)
    vectors = topics[chance.integers(0, 1000, count)]
    vectors += 0.9 * chance.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[chance.integers(0, count, QUERIES)]
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        kept = VectorStore(Path(folder), "bench")
        started = time.perf_counter()
        for first in range(0, count, 1000):
            part = range(first, min(count, first + 1000))
            passages = [Passage(f"text {i}", i, float(i), "note", "s", None) for i in part]
            kept.append(passages, {f"text {i}": vectors[i] for i in part}, part[-1])
            kept.commit()
        insert_s = time.perf_counter() - started
        ours, found = median_ms(lambda q: kept.search(q, Wish(limit=TOP)), queries)
        half = Wish(limit=TOP, since=count / 2)
        filtered, _ = median_ms(lambda q: kept.search(q, half), queries)
        grown = psutil.Process().memory_info().rss - before
        disk = sum(path.stat().st_size for path in Path(folder).iterdir())

    def exactly(query: Any) -> Any:
        scores = vectors @ query
        best = np.argpartition(-scores, TOP)[:TOP]
        return best[np.argsort(-scores[best])]

    numpy_ms, exact = median_ms(exactly, queries)
    same = [len({o for o, _ in a} & set(b.tolist())) for a, b in zip(found, exact, strict=True)]
    return {
        "vectors": count,
        "durable_inserts_per_s": round(count / insert_s),
        "search_p50_ms": round(ours, 2),
        "filtered_p50_ms": round(filtered, 2),
        "numpy_p50_ms": round(numpy_ms, 2),
        "times_numpy": round(ours / numpy_ms, 2),
        "recall_at_10": sum(same) / (TOP * QUERIES),
        "memory_mb": grown >> 20,
        "disk_mb": disk >> 20,
    }


def sentences() -> list[str]:
    """288 distinct ones of about 20 words."""
    return [
        template_of(f"{reason.format(s=symbol)}, by the {meaning}")
        for reason, symbol, meaning in product(corpus.REASONS, corpus.SYMBOLS, corpus.MEANINGS)
    ]


def embedding() -> dict[str, Any]:
    """Sentences a second through the worker process, beside the model alone in this one."""
    texts = sentences()
    torch.set_num_threads(1)
    encoder = Encoder(model_folder())
    encoder.encode(texts[:TEXTS_AT_ONCE])
    ordered = sorted(texts, key=len)
    started = time.perf_counter()
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        encoder.encode(ordered[first : first + TEXTS_AT_ONCE])
    alone = len(texts) / (time.perf_counter() - started)
    with running(SEMANTIC="true") as node:
        through = asyncio.run(_through_worker(node, texts))
    return {
        "model_alone_per_s": round(alone),
        "through_worker_per_s": round(through),
        "share_of_model": round(through / alone, 2),
    }


async def _through_worker(node: Node, texts: list[str]) -> float:
    worker = SemanticClient(node.data / "semantic.sock")
    passages = [Passage(text, i, 0.0, "note", "s", None) for i, text in enumerate(texts)]
    while True:
        try:
            await worker.begin("bench", within_s=PATIENCE_S)
            break
        except SemanticUnavailable:
            await asyncio.sleep(0.1)
    started = time.perf_counter()
    await worker.add(-1, passages, len(texts) - 1, 0, within_s=PATIENCE_S)
    return len(texts) / (time.perf_counter() - started)


def service(count: int) -> dict[str, Any]:
    """A node with the mixed corpus: until it has caught up, then searches over HTTP."""
    lines = corpus.lines(count)
    batches = [b"\n".join(lines[i : i + 1000]) for i in range(0, count, 1000)]
    with running(SEMANTIC="true") as node, requests.Session() as session:

        def ask(body: dict[str, Any]) -> dict[str, Any]:
            asked = {"query": "matrix factorisation of asset moves", "deadline_ms": 60_000, **body}
            answer = session.post(f"{node.url}/api/context/search", json=asked)
            found: dict[str, Any] = answer.json()
            return found

        started = time.perf_counter()
        post_all(node, batches, "application/x-ndjson", 2)
        ingest_s = time.perf_counter() - started
        while ask({"mode": "semantic"}).get("semantic", {}).get("behind") != 0:
            time.sleep(0.1)
        caught_up_s = time.perf_counter() - started
        modes = {
            mode: round(median_ms(lambda _: ask({"mode": mode}), range(QUERIES))[0], 2)  # noqa: B023
            for mode in ("text", "semantic", "hybrid")
        }
        vectors = node.data / "semantic"
        return {
            "items": count,
            "ingest_s": round(ingest_s, 2),
            "caught_up_s": round(caught_up_s, 2),
            "http_p50_ms": modes,
            "disk_mb": sum(path.stat().st_size for path in vectors.iterdir()) / 1e6,
        }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = {
        "store": store(args.vectors),
        "embedding": embedding(),
        "service": service(args.items),
    }
    if args.json:
        print(json.dumps(figures))
        return
    for name, rows in figures.items():
        print(name)
        for row, figure in rows.items():
            print(f"  {row:24} {figure}")


if __name__ == "__main__":
    main()
