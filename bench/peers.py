"""Other ways to find text, in this process and at a million items, for `bench.scale`."""

from __future__ import annotations

import importlib.util
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from bench.progress import progress

PEER_ITEMS = 1_000_000
LIMIT = 50
RUNS = 50
BATCH = 10_000
Find = Callable[[str], int]


def peers(path: Path, asked: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Items per second taken in, and p50 of the plain queries, of each peer."""
    found = {"SQLite FTS5, trigrams": _measured(_fts5, path, asked)}
    if importlib.util.find_spec("tantivy"):
        found["tantivy, 3-grams"] = _measured(_tantivy, path, asked)
    return found


def _measured(
    build: Callable[[Path, Path], Find], path: Path, asked: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    plain = {name: body["query"] for name, body in asked.items() if set(body) <= {"query", "type"}}
    with tempfile.TemporaryDirectory(prefix="context-peer-") as folder:
        started = time.perf_counter()
        find = build(path, Path(folder))
        took = time.perf_counter() - started
        size = sum(each.stat().st_size for each in Path(folder).rglob("*") if each.is_file())
        return {
            "items": PEER_ITEMS,
            "items_per_s": round(PEER_ITEMS / took),
            "bytes_per_item": round(size / PEER_ITEMS),
            "p50_ms": {name: _p50(find, needle) for name, needle in plain.items()},
        }


def _p50(find: Find, needle: str) -> float:
    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        find(needle)
        took.append((time.perf_counter() - started) * 1e3)
    return round(statistics.median(took), 2)


def _fts5(path: Path, folder: Path) -> Find:
    db = sqlite3.connect(folder / "fts.db", isolation_level=None)
    db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
    db.execute("CREATE VIRTUAL TABLE lines USING fts5(line, tokenize='trigram case_sensitive 1')")
    with path.open() as file, progress("FTS5", PEER_ITEMS) as done:
        rows = islice(file, PEER_ITEMS)
        while batch := [(line,) for line in islice(rows, BATCH)]:
            db.execute("BEGIN")
            db.executemany("INSERT INTO lines VALUES (?)", batch)
            db.execute("COMMIT")
            done(len(batch))
    newest = "SELECT line FROM lines WHERE lines MATCH ? ORDER BY rowid DESC LIMIT ?"

    def find(needle: str) -> int:
        quoted = '"' + needle.replace('"', '""') + '"'
        return len(db.execute(newest, (quoted, LIMIT)).fetchall())

    return find


def _tantivy(path: Path, folder: Path) -> Find:
    import tantivy  # noqa: PLC0415 - only where it is installed

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("line", stored=True, tokenizer_name="grams")
    builder.add_integer_field("at", fast=True)
    index = tantivy.Index(builder.build(), path=str(folder))
    grams = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.ngram(3, 3, False)).build()
    index.register_tokenizer("grams", grams)
    writer = index.writer(256 << 20, 1)
    with path.open() as file, progress("tantivy", PEER_ITEMS) as done:
        for at, line in enumerate(islice(file, PEER_ITEMS)):
            writer.add_document(tantivy.Document(line=line.rstrip("\n"), at=at))
            if at % BATCH == 0:
                done(BATCH)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher, schema = index.searcher(), index.schema

    def find(needle: str) -> int:
        words: list[Any] = [needle[i : i + 3] for i in range(len(needle) - 2)]
        query = tantivy.Query.phrase_query(schema, "line", words)
        hits = searcher.search(query, LIMIT, order_by_field="at").hits
        return sum(needle in searcher.doc(address)["line"][0] for _, address in hits)

    return find
