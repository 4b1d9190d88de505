"""Sealing and excluding: speed beside zstd alone, sizes, and blocks kept for nothing.

    python -m bench.seal [--items 400000] [--json]

Speeds are per second of one thread's CPU time, the best of three. `excluding` asks 2,100 blocks:
those of the corpus several times over, which makes a group's rows no easier to combine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from bench import corpus
from context.adapters.blocks_fs import BlockFiles
from context.adapters.slices_fs import SliceFiles
from context.bitslices import GROUP_BLOCKS, BitSlices, OpenGroup, Plan, prepare
from context.block import Block
from context.items import Batch
from context.literals import Formula
from context.ngrams import BITMAP_BYTES, Hasher
from context.sealed import HEADER, Sealed, decode, encode, read_head

BLOCK_BYTES = 1 << 20
BLOCKS_ASKED = 2_100


def blocks_of(items: int) -> list[Block]:
    """The corpus as blocks; an item without a source gets one, as at a node."""
    blocks, lines, size, first = [], [], 0, 0
    for line in corpus.lines(items):
        whole = line.replace(b'"tensor_math",', b'"tensor_math","source":"unknown",')
        lines.append(whole)
        size += len(whole) + 1
        if size >= BLOCK_BYTES:
            text = b"\n".join(lines) + b"\n"
            blocks.append(Block.of([Batch(first, len(lines), 1.0, 1, text)]))
            first, lines, size = first + len(lines), [], 0
    return blocks


def rate(work: Callable[[], Any], nbytes: int) -> float:
    """MB of text per CPU second."""
    best = float("inf")
    for _ in range(3):
        started = time.thread_time()
        work()
        best = min(best, time.thread_time() - started)
    return round(nbytes / best / 1e6)


def speeds(blocks: list[Block], hasher: Hasher) -> dict[str, float]:
    """Each step alone, then all that sealing is."""
    compress = zstandard.ZstdCompressor(level=1).compress
    nbytes = sum(len(block.text) for block in blocks)
    sealed = [Sealed(block, ((0, 1),)) for block in blocks]
    data = [encode(each) for each in sealed]
    return {
        "zstd_alone": rate(lambda: [compress(block.text) for block in blocks], nbytes),
        "bitmaps": rate(lambda: [hasher.bitmap(block.text) for block in blocks], nbytes),
        "encode": rate(lambda: [encode(each) for each in sealed], nbytes),
        "sealing": rate(lambda: [(encode(s), hasher.bitmap(s.block.text)) for s in sealed], nbytes),
        "decode": rate(lambda: [decode(each) for each in data], nbytes),
    }


def sizes(blocks: list[Block], rows: bytes, in_rows: int) -> dict[str, float]:
    """Share of the raw text, percent."""
    raw = sum(len(block.text) for block in blocks)
    data = [encode(Sealed(block, ((0, 1),))) for block in blocks]
    tables = [HEADER.unpack_from(each)[8:17:3] for each in data]
    heads, columns, text = (sum(part) for part in zip(*tables, strict=True))
    whole = sum(map(len, data)) / raw + len(rows) / in_rows / BLOCK_BYTES
    return {
        "text": round(100 * text / raw, 2),
        "columns": round(100 * columns / raw, 2),
        "heads": round(100 * (heads + HEADER.size * len(data)) / raw, 2),
        "rows": round(100 * len(rows) / in_rows / BLOCK_BYTES, 2),
        "all": round(100 * whole, 2),
    }


def needles(blocks: list[Block]) -> dict[str, bytes]:
    """What is hard to find, and what is not there though each of its pieces is."""
    middle = blocks[len(blocks) // 2]
    line = next(line for line in middle.text.splitlines() if b'"hash_value":"' in line)
    found = json.loads(line)["data"]
    trade = next(line for line in middle.text.splitlines() if b'"event_id":"td-' in line)
    prices = (b'"price":%.4f' % (i / 7) for i in range(10_000, 90_000))
    texts = b"".join(block.text for block in blocks)
    price = next(p[8:15] for p in prices if len(p) > 15 and texts.count(p[8:15]) == 1)
    return {
        "12 hex digits": found["hash_value"][:12].encode(),
        "event id": json.loads(trade)["data"]["event_id"].encode(),
        "7-character price": price,
        "absent, trigrams occur": b"volumetric spread sellthrough",
        "in every block": b"weighted covariance of order flow",
    }


def excluding(blocks: list[Block], bitmaps: list[Any], folder: Path) -> dict[str, Any]:
    """How long it takes to exclude blocks, and how many are kept without holding the needle."""
    files, slices = SliceFiles(folder), BitSlices()
    for n in range(BLOCKS_ASKED):
        slices.open.add(n, bitmaps[n % len(bitmaps)], folds=False)
        if slices.open.count == GROUP_BLOCKS:
            slices.settle(files.put(int(slices.open.firsts[0]), slices.open.close()))
    firsts, report = np.arange(BLOCKS_ASKED), {}
    for name, needle in needles(blocks).items():
        formula = Formula(((needle,),))
        cold: list[float] = []
        warm: list[float] = []
        for _ in range(15):
            fresh = BitSlices(files.list())
            fresh.open = slices.open
            for took in (cold, warm):
                started = time.perf_counter()
                kept = fresh.candidates(Plan(formula), firsts)
                took.append((time.perf_counter() - started) * 1e3)
        holds = np.array([needle in block.text for block in blocks])
        wrong = kept[: len(blocks)] & ~holds
        report[name] = {
            "needle": needle.decode(),
            "cold_ms": round(statistics.median(cold), 3),
            "warm_ms": round(statistics.median(warm), 3),
            "wrongly_kept_percent": round(100 * wrong.mean(), 2),
        }
    return report


def storing(blocks: list[Block], folder: Path) -> dict[str, float]:
    """Durable writes of sealed blocks, and a start that reads all heads."""
    data = [encode(Sealed(block, ((0, 1),))) for block in blocks]
    store, report = BlockFiles(folder), {}
    for together in (1, 8):
        started = time.perf_counter()
        for i in range(0, len(data), together):
            store.put(data[i : i + together])
        took = (time.perf_counter() - started) / len(data)
        report[f"put_{together}_ms_per_block"] = round(took * 1e3, 2)
    started = time.perf_counter()
    found = len(BlockFiles(folder).list())
    report["open_us_per_block"] = round((time.perf_counter() - started) / found * 1e6, 1)
    started = time.perf_counter()
    for each in data:
        read_head(each)
    report["read_head_us"] = round((time.perf_counter() - started) / len(data) * 1e6, 1)
    return report


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=400_000)
    parser.add_argument("--json", action="store_true", help="one object instead of a text")
    options = parser.parse_args()
    started = time.perf_counter()
    hasher = Hasher()
    prepare()
    ready = time.perf_counter() - started
    blocks = blocks_of(options.items)
    bitmaps = [hasher.bitmap(block.text) for block in blocks]
    group = OpenGroup(GROUP_BLOCKS)
    for block, bitmap in list(zip(blocks, bitmaps, strict=True))[:GROUP_BLOCKS]:
        group.add(block.first_offset, bitmap, folds=False)
    started = time.thread_time()
    rows = group.close()
    closing = time.thread_time() - started
    with tempfile.TemporaryDirectory() as folder:
        speed = speeds(blocks, hasher)
        report = {
            "blocks": len(blocks),
            "compiled_loops_ready_s": round(ready, 3),
            "mb_per_cpu_s": speed,
            "sealing_to_zstd_alone": round(speed["sealing"] / speed["zstd_alone"], 2),
            "percent_of_raw": sizes(blocks, rows, group.count),
            "closing_a_group_ms_per_block": round(closing / group.count * 1e3, 2),
            "bitmap_bytes": BITMAP_BYTES,
            "storing": storing(blocks, Path(folder, "blocks")),
            f"excluding_{BLOCKS_ASKED}_blocks": excluding(blocks, bitmaps, Path(folder, "rows")),
        }
    print(json.dumps(report, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
