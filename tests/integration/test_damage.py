"""Damage in sealed blocks: told, made again where the log has it, and in nobody else's way."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from context.adapters import archive, blocks_fs
from context.adapters.log_sqlite import SqliteLog
from context.adapters.mending import read_after
from context.bitslices import BitSlices
from context.block import Bounds
from context.damage import LostBlock, UnreadableBlock
from context.ports import Draft
from context.query import Selection, compile_matcher
from context.request import SearchRequest
from context.scan import read_forward, read_on
from context.search import search
from tests.integration.test_archive import BATCH, ITEMS, LINES, Memory, expected
from tests.node_process import NodeProcess, wait_for
from tests.streaming import SseReader

EXPORT = "/api/context/export?query=a"


def filled(folder: Path, items: int = ITEMS) -> list[Bounds]:
    """A node's folder with sealed blocks; gives their bounds."""
    memory = Memory(folder)
    for at in range(0, items, BATCH):
        memory.add(LINES[at : at + BATCH])
    memory.settled()
    memory.stop()
    return [head.bounds for head in memory.archive.heads()]


def flip(memory: Memory, first: int, where: Callable[[int], int]) -> None:
    """Change one byte of a stored block; `where` tells which, from its length."""
    place = memory.archive.blocks._places[first]
    with place.path.open("r+b") as file:
        file.seek(place.at + where(place.length))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))


def body(length: int) -> int:
    return length // 2


def header(length: int) -> int:
    return 70


def asked(memory: Memory, query: str, **options: Any) -> dict[str, Any]:
    wish = SearchRequest(query=query, **{"limit": 10_000, "deadline_ms": 60_000} | options)
    return search(memory.index.snapshot(), wish, epoch="e", clock=time.monotonic)


def found(answer: dict[str, Any]) -> list[int]:
    return [json.loads(bytes(item))["offset"] for item in answer["items"]]


def spans(*lost: Bounds) -> list[dict[str, int]]:
    return [{"first": each.first_offset, "last": each.last_offset} for each in lost]


def offsets(bounds: Bounds) -> range:
    return range(bounds.first_offset, bounds.last_offset + 1)


def terms_of(memory: Memory, bounds: Bounds) -> list[tuple[int, int]]:
    """Who wrote each item of a sealed block."""
    batches = memory.archive.read(bounds.first_offset).batches()
    return [(i, b.term) for b in batches for i in range(b.first_offset, b.last_offset + 1)]


def check_lost(memory: Memory, lost: Bounds) -> None:
    """Every reader hears of the lost block; everything else is found."""
    query = "advisor"
    rest = [i for i in expected(query) if i not in offsets(lost)]
    for _ in range(2):
        answer = asked(memory, query)
        assert (found(answer), answer["partial"]) == (rest, False)
        assert answer["damaged"] == spans(lost)
    assert asked(memory, query, count_only=True)["count"] == len(rest)
    outside = asked(memory, query, limit=5)
    assert "damaged" not in outside, "what was not looked at is not told"
    with pytest.raises(LostBlock, match=f"items {lost.first_offset} to {lost.last_offset}"):
        memory.index.item(lost.first_offset + 3)
    behind = asked(memory, LINES[lost.last_offset + 1], context=2)
    (hit,) = [json.loads(bytes(item)) for item in behind["items"]]
    assert hit["context"]["before"] == []
    assert behind["damaged"] == spans(lost)
    check_reading(memory, lost)


def check_reading(memory: Memory, lost: Bounds) -> None:
    """Reading forward stops before the gap, tells exactly what is missing, and goes on."""
    snapshot, seen, gaps, after = memory.index.snapshot(), [], [], -1
    limits = {"max_items": 5000, "max_bytes": 1 << 30}
    while after < ITEMS - 1:
        try:
            items, after = read_forward(snapshot, after, Selection(), **limits)
            seen += [offset for offset, _, _ in items]
        except LostBlock as exc:
            gaps.append((after + 1, exc.last))
            _, after = read_on(snapshot, after, Selection(), **limits)
    assert seen == [i for i in range(ITEMS) if i not in offsets(lost)]
    assert gaps == [(lost.first_offset, lost.last_offset)]
    with pytest.raises(LostBlock):
        read_forward(snapshot, lost.first_offset + 3, Selection(), **limits)
    (batch, *_) = read_after(memory.archive, memory.log, lost.first_offset + 3, max_bytes=1)
    assert batch.first_offset == lost.last_offset + 1


@pytest.mark.parametrize("where", [body, header])
def test_damage_that_the_log_cannot_mend_is_told_to_every_reader(
    tmp_path: Path, where: Callable[[int], int], caplog: pytest.LogCaptureFixture
) -> None:
    blocks = filled(tmp_path)
    hurt, lost = Memory(tmp_path, sealing=False), blocks[2]
    flip(hurt, lost.first_offset, where)
    if where is header:  # nobody reads it again before the next start
        hurt.stop()
        hurt = Memory(tmp_path, sealing=False)
    check_lost(hurt, lost)
    assert hurt.found == 1
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    (line,) = [each for each in errors if each.name.startswith("context.")]
    assert (line.first, line.last) == (lost.first_offset, lost.last_offset)  # type: ignore[attr-defined]
    (kept,) = (tmp_path / "blocks" / "damaged").iterdir()
    assert kept.name == f"{lost.first_offset:020d}-{lost.last_offset:020d}.block"
    hurt.stop()
    again = Memory(tmp_path, sealing=False)
    check_lost(again, lost)
    assert again.found == 0, "it is told once"
    again.stop()
    kept.unlink()
    given_up = Memory(tmp_path, sealing=False)
    assert "damaged" not in asked(given_up, "advisor")
    assert given_up.index.item(lost.first_offset) is None
    limits = {"max_items": 50_000, "max_bytes": 1 << 30}
    _, reached = read_forward(given_up.index.snapshot(), -1, Selection(), **limits)
    assert reached == lost.first_offset - 1, "missing history is not stepped over unawares"
    assert given_up.index.snapshot().following(reached) == lost.last_offset + 1
    items, _ = read_forward(given_up.index.snapshot(), reached, Selection(), **limits)
    assert items[0][0] == lost.last_offset + 1
    given_up.stop()


@pytest.mark.parametrize("where", [body, header])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_what_the_log_still_has_is_made_again(
    tmp_path: Path, where: Callable[[int], int], which: int
) -> None:
    first = Memory(tmp_path)
    first.log.trim = lambda through: None  # type: ignore[method-assign]  # the crash comes here
    for at in range(0, 16_000, BATCH):
        first.add(LINES[at : at + BATCH], term=1 + at // 4000)
    first.settled()
    first.stop()
    bounds = [head.bounds for head in first.archive.heads()][which]
    flip(first, bounds.first_offset, where)
    again = Memory(tmp_path)
    again.settled()
    assert found(asked(again, "advisor")) == [i for i in expected("advisor") if i < 16_000]
    assert again.archive.lost == {}
    assert again.found == (0 if which == -1 else 1), "a torn end was never promised"
    terms = {i: term for head in again.archive.heads() for i, term in terms_of(again, head.bounds)}
    assert terms == {i: 1 + i // 4000 for i in terms}
    again.stop()


def test_a_running_node_makes_a_block_again_from_the_log(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.log.trim = lambda through: None  # type: ignore[method-assign]
    for at in range(0, ITEMS, BATCH):
        memory.add(LINES[at : at + BATCH])
    memory.settled()
    for head in memory.archive.heads():
        flip(memory, head.bounds.first_offset, body)
    answer = asked(memory, "advisor")
    assert found(answer) == expected("advisor")
    assert "damaged" not in answer
    assert memory.found > 0
    memory.stop()


def test_the_newest_batch_survives_its_block(tmp_path: Path) -> None:
    blocks = filled(tmp_path, 12_000)
    memory = Memory(tmp_path)
    newest = memory.index.snapshot().newest
    while memory.archive.heads()[-1].bounds.last_offset < newest:  # until a block ends with it
        memory.add(LINES[newest + 1 : newest + 1 + BATCH])
        newest += BATCH
        wait_s = time.monotonic() + 5
        while memory.sealer.waiting and time.monotonic() < wait_s:
            time.sleep(0.01)
    memory.settled()
    memory.stop()
    last = memory.archive.heads()[-1].bounds
    assert memory.log.bounds()[0] > last.first_offset
    flip(memory, last.first_offset, body)
    again = Memory(tmp_path, sealing=False)
    assert again.index.snapshot().newest == newest
    assert again.index.item(newest) is not None
    lost = asked(again, "a", limit=10_000, count_only=True)["damaged"]
    assert lost == [{"first": last.first_offset, "last": newest - BATCH}]
    assert len(blocks) >= 2
    again.stop()


def test_a_disk_that_fails_once_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = filled(tmp_path)[1]
    memory = Memory(tmp_path, sealing=False)
    failures = iter([True, False, True, True])

    def fails(self: Any, first: int, **options: Any) -> bytes:
        if first == lost.first_offset and next(failures, False):
            raise OSError(errno.EIO, "Input/output error")
        return get(self, first, **options)

    get = blocks_fs.BlockFiles.get
    monkeypatch.setattr(blocks_fs.BlockFiles, "get", fails)
    assert memory.index.item(lost.first_offset) is not None, "the second try succeeds"
    memory.index._cache._blocks.clear()
    with pytest.raises(UnreadableBlock):
        memory.index.item(lost.first_offset)
    assert memory.index.item(lost.first_offset) is not None
    assert not (tmp_path / "blocks" / "damaged").exists()
    assert memory.found == 0
    memory.stop()


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BitSlices", partial(BitSlices, size=2))


@pytest.mark.usefixtures("small_groups")
def test_a_lost_block_that_n_grams_exclude_is_not_told(tmp_path: Path) -> None:
    lost = filled(tmp_path)[0]
    memory = Memory(tmp_path, sealing=False)
    flip(memory, lost.first_offset, body)
    assert "damaged" in asked(memory, "advisor")
    absent = asked(memory, "a word that nobody ever wrote")
    assert "damaged" not in absent, "nothing that matches was in it"
    rare = Selection(matcher=compile_matcher(LINES[-3], regex=False, ignore_case=False))
    limits = {"max_items": 5, "max_bytes": 1 << 30, "max_scan_bytes": 4 << 20}
    assert read_forward(memory.index.snapshot(), -1, rare, **limits)[0][0][0] == ITEMS - 3
    memory.stop()


@pytest.mark.usefixtures("small_groups")
def test_damaged_n_grams_are_made_again(tmp_path: Path) -> None:
    filled(tmp_path)
    (path, *_) = paths = sorted((tmp_path / "rows").iterdir())
    assert len(paths) == 2
    memory = Memory(tmp_path)
    memory.settled()
    open_blocks = asked(memory, "quetzal, xylophone & jukebox")["scanned"]["blocks"]
    stored = path.read_bytes()
    begin = stored.index(bytes.fromhex("28b52ffd"))
    path.write_bytes(stored[:begin] + bytes(len(stored) - begin))
    rare = "a word that nobody ever wrote"
    answer = asked(memory, rare)
    assert answer["items"] == []
    assert answer["scanned"]["blocks"] == open_blocks + 2, "damaged rows exclude nothing"
    wait_for(lambda: asked(memory, rare)["scanned"]["blocks"] == open_blocks, "n-grams")
    memory.settled()
    memory.stop()
    again = Memory(tmp_path, sealing=False)
    assert len(again.archive.slices.closed) == 2
    assert found(asked(again, "advisor")) == expected("advisor")
    again.stop()


def flip_stored(folder: Path, nth: int) -> None:
    """Change a byte in the middle of the nth block of the first file, as a disk would."""
    path = min((folder / "blocks").glob("*.blocks"))
    with path.open("r+b") as file:
        starts = [at for at in range(0, path.stat().st_size, 4096) if _begins(file, at)]
        at = (starts[nth] + starts[nth + 1]) // 2
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def _begins(file: Any, at: int) -> bool:
    file.seek(at)
    return bool(file.read(8) == b"CTXBLK\r\n")


def test_a_node_lives_with_a_damaged_block(tmp_path: Path) -> None:
    items = [json.loads(line) for line in LINES]
    with NodeProcess(tmp_path / "data", None, env={"CONTEXT_SEARCH_CACHE_MB": "1"}) as node:
        api = node.client
        epoch = api.ingest(items[:BATCH])["cursor"].split(":")[0]
        for at in range(BATCH, ITEMS, BATCH):
            api.ingest(items[at : at + BATCH])
        wait_for((node.data_dir / "blocks" / "0000000001.blocks").exists, "a file")
        wait_for(lambda: _sealed(node) >= 4, "blocks to be sealed")
        flip_stored(node.data_dir, 1)
        before = set(node.pids())
        with pytest.raises(requests.RequestException):  # its head was sent before anyone knew
            assert not api.get(EXPORT).content
        answer = api.post("/api/context/search", json={"query": "advisor", "limit": 10_000}).json()
        (lost,) = answer["damaged"]
        missing = range(lost["first"], lost["last"] + 1)
        assert lost["first"] > 0
        offsets = [item["offset"] for item in answer["items"]]
        assert offsets == [i for i in expected("advisor") if i not in missing]
        newest = api.post("/api/context/search", json={"query": "advisor", "limit": 3}).json()
        assert "damaged" not in newest
        gone = api.get(f"/api/context/items/{lost['first'] + 1}")
        assert (gone.status_code, gone.json()["code"]) == (410, "damaged_block")
        assert api.get(f"/api/context/items/{lost['last'] + 1}").status_code == 200
        assert api.get("/api/context/stats").json()["damaged"] == [lost]
        assert "context_damaged_blocks_total 1.0" in api.get("/metrics").text
        exported = api.get(EXPORT)
        assert exported.headers["Context-Damaged"] == f"{lost['first']}-{lost['last']}"
        assert len(exported.content.splitlines()) == len(
            [i for i, line in enumerate(LINES) if "a" in line and i not in missing]
        )
        assert set(node.pids()) == before
        assert "a damaged block is lost" in node.log
        node.kill9()
        node.start()
        assert api.get("/api/context/stats").json()["damaged"] == [lost]
        again = api.post("/api/context/search", json={"query": "advisor", "limit": 10_000}).json()
        assert (again["items"], again["damaged"]) == (answer["items"], [lost])
        with SseReader(node, after=f"{epoch}:-1", source="advisor") as reader:
            wanted = [i for i in expected("advisor")[::-1] if i not in missing]
            got = reader.wait_items(len(wanted), seconds=30)
            assert [item["offset"] for item in got] == wanted
            gaps = [event.data for event in reader.events if event.kind == "gap"]
            assert gaps == [
                {
                    "missed_from": f"{epoch}:{lost['first']}",
                    "missed_to": f"{epoch}:{lost['last']}",
                }
            ]


def _sealed(node: NodeProcess) -> int:
    path = min((node.data_dir / "blocks").glob("*.blocks"))
    with path.open("rb") as file:
        return sum(_begins(file, at) for at in range(0, path.stat().st_size, 4096))


@pytest.mark.parametrize("kind", ["line", "row", "file"])
def test_a_damaged_log_stops_the_start_with_one_line(tmp_path: Path, kind: str) -> None:
    node = NodeProcess(tmp_path / "data")
    path = node.data_dir / "log.db"
    node.data_dir.mkdir()
    log = SqliteLog(path)
    texts = [b"".join(f"{line}\n".encode() for line in LINES[at : at + 10]) for at in (0, 10, 20)]
    if kind == "line":
        texts[1] = texts[1].replace(b'"type"', b'"tipe"', 4)
    for text in texts:
        log.append([Draft(10, text)], term=1, now=1.0)
    log.close()
    if kind == "row":
        with sqlite3.connect(path) as db:
            db.execute("UPDATE batches SET body = x'00010203' WHERE first_offset = 10")
        db.close()
    if kind == "file":
        for each in node.data_dir.glob("log.db*"):
            each.unlink()
        path.write_bytes(b"no database" * 1000)
    with pytest.raises(AssertionError, match="the node ended"):
        node.start()
    offset = 0 if kind == "file" else 10
    told = [line for line in node.log.splitlines() if "log.db: the items from offset" in line]
    assert any(f"from offset {offset} on cannot be read" in line for line in told)
    assert "Traceback" not in node.log
    node.kill9()
