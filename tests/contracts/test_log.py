"""One suite for every engine of the Log port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.adapters.log_applied import AppliedLog
from context.adapters.log_jetstream import ItemsApplier, JetStreamLog
from context.adapters.log_memory import MemoryLog
from context.adapters.log_sqlite import SqliteLog
from context.block import line_ends
from context.compression import decompress
from context.entries import COMPRESS_FROM
from context.errors import FencedOut, KeyReused
from context.heads import Heads
from context.items import Batch
from context.merging import MERGED_BYTES, MERGED_ITEMS
from context.packed import carry
from context.ports import Draft, Log, Outcome, Receipt
from shared_storage.adapters.replica import Replica
from shared_storage.adapters.stream_memory import MemoryStream
from shared_storage.envelope import Kind
from shared_storage.ports import Stream
from tests.engines import Streams, need_engine

DAY_S = 24 * 3600.0


def draft(*lines: bytes, key: str | None = None, digest: bytes = b"d") -> Draft:
    return Draft(len(lines), b"".join(line + b"\n" for line in lines), key=key, digest=digest)


def receipt(log: Log, one: Draft, *, term: int = 1, now: float = 0.0) -> Receipt:
    (outcome,) = log.append([one], term=term, now=now).outcomes
    assert isinstance(outcome, Receipt)
    return outcome


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    need_engine()
    with Streams(tmp_path_factory.mktemp("engine")) as made:
        yield made


@pytest.fixture(params=["sqlite", "memory", "replicated", "jetstream"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    if request.param == "memory":
        yield MemoryLog()
        return
    if request.param == "replicated":
        yield from closing(replicated(tmp_path, MemoryStream()))
        return
    if request.param == "jetstream":
        yield from closing(replicated(tmp_path, request.getfixturevalue("streams").fresh()))
        return
    engine = SqliteLog(tmp_path / "log.db")
    yield engine
    engine.close()


def replicated(folder: Path, stream: Stream) -> JetStreamLog:
    items = ItemsApplier(AppliedLog(folder / "log.db"))
    replica = Replica(stream, {Kind.ITEMS: items}, epoch=items.copy.epoch, term=items.copy.term)
    return JetStreamLog(replica, items)


def closing(log: JetStreamLog) -> Iterator[Log]:
    yield log
    log.close()


def test_offsets_are_dense_and_reading_continues_after_any_of_them(log: Log) -> None:
    assert log.bounds() == (0, -1)
    assert log.read(-1, max_bytes=1) == []
    assert receipt(log, draft(b"a")).first_offset == 0
    group = log.append([draft(b"b", b"c"), draft(b"d" * 1000)], term=1, now=2.0).outcomes
    assert [(r.first_offset, r.last_offset) for r in group if isinstance(r, Receipt)] == [
        (1, 2),
        (3, 3),
    ]
    assert log.bounds() == (0, 3)
    batches = log.read(-1, max_bytes=1 << 20)
    assert b"".join(batch.text for batch in batches) == b"a\nb\nc\n" + b"d" * 1000 + b"\n"
    assert [(b.ingested_at, b.term) for b in batches for _ in range(b.count)] == [
        (0.0, 1),
        *[(2.0, 1)] * 3,
    ]
    for after in range(-1, 4):
        found = log.read(after, max_bytes=1 << 20)
        assert not found or found[0].first_offset <= after + 1 <= found[0].last_offset
        assert (found[-1].last_offset if found else 3) == 3
    assert len(log.read(-1, max_bytes=1)) == 1, "at least one, whatever the limit"


def test_a_repeat_with_the_same_key_stores_nothing_for_a_day(log: Log) -> None:
    first = receipt(log, draft(b"x", b"y", key="k"))
    again = receipt(log, draft(b"x", b"y", key="k"), now=DAY_S - 1)
    assert again == Receipt(first.first_offset, 2, 1, replayed=True)
    assert log.bounds() == (0, 1)
    assert receipt(log, draft(b"x", b"y", key="k"), now=DAY_S + 1).first_offset == 2


def test_a_repeat_within_one_group_is_found_too(log: Log) -> None:
    one, two = log.append([draft(b"x", key="k"), draft(b"x", key="k")], term=1, now=0.0).outcomes
    assert one == Receipt(0, 1, 1)
    assert two == Receipt(0, 1, 1, replayed=True)


def test_a_key_with_another_body_is_refused_and_the_group_goes_on(log: Log) -> None:
    receipt(log, draft(b"x", key="k", digest=b"1"))
    bad, good = log.append(
        [draft(b"y", key="k", digest=b"2"), draft(b"z")], term=1, now=0.0
    ).outcomes
    assert isinstance(bad, KeyReused)
    assert good == Receipt(1, 1, 1)


def test_an_older_term_is_fenced_out(log: Log) -> None:
    receipt(log, draft(b"a"), term=5)
    with pytest.raises(FencedOut, match="term 4 is older than 5"):
        log.append([draft(b"b")], term=4, now=0.0)
    assert log.bounds() == (0, 0)


def test_terms_are_told_with_the_offsets_where_they_begin(log: Log) -> None:
    for term, lines in ((1, (b"a", b"b")), (1, (b"c",)), (4, (b"d", b"e")), (4, (b"f",))):
        receipt(log, draft(*lines), term=term)
    assert log.terms(0, 5) == [(0, 1), (3, 4)]
    assert log.terms(2, 2) == [(2, 1)]
    assert log.terms(5, 5) == [(5, 4)]


def test_trimming_drops_whole_batches_and_never_the_newest(log: Log) -> None:
    for lines in ((b"a", b"b"), (b"c",), (b"d", b"e")):
        receipt(log, draft(*lines, key=lines[0].decode()))
    log.trim(0)
    assert log.bounds() == (0, 4), "a batch that is needed in part stays whole"
    log.trim(2)
    assert log.bounds() == (3, 4)
    assert [batch.text for batch in log.read(-1, max_bytes=1 << 20)] == [b"d\ne\n"]
    log.trim(100)
    assert log.bounds() == (3, 4)
    assert receipt(log, draft(b"a", b"b", key="a")).replayed, "keys stay"
    assert receipt(log, draft(b"f")).first_offset == 5


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), step=st.integers(1, 4000))
def test_reading_in_pieces_gives_every_item_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], step: int
) -> None:
    engines: list[Callable[[], Log]] = [
        MemoryLog,
        lambda: SqliteLog(tmp_path_factory.mktemp("log") / "log.db"),
    ]
    for make in engines:
        log = make()
        expected = []
        for size in sizes:
            lines = [b"%d-%d" % (size, i) for i in range(size)]
            expected += lines
            receipt(log, draft(*lines))
        seen, after = [], -1
        while batches := log.read(after, max_bytes=step):
            for batch in batches:
                assert batch.first_offset == after + 1
                seen += batch.text.splitlines()
                after = batch.last_offset
        assert seen == expected
        if isinstance(log, SqliteLog):
            log.close()


LINE = b'{"type":"%s","source":"s%d","timestamp":%d,"data":{"symbol":"A%d"}}'


def known(count: int, name: bytes, *, key: str | None, parsed: bool, apart: bool) -> Draft:
    """A draft as a body makes it: with columns and ends where it was read at once."""
    text = b"".join(LINE % (name, i % 3, i, i % 5) + b"\n" for i in range(count))
    heads, ends = (Heads.read(text), line_ends(text)) if parsed else (None, None)
    return Draft(count, text, key, name, heads, ends=ends, apart=apart)


made = st.builds(
    known,
    st.one_of(st.integers(1, 4), st.integers(1, 2500)),
    st.sampled_from([b"x", b"yy", b"z" * 300]),
    key=st.one_of(st.none(), st.sampled_from("abc")),
    parsed=st.booleans(),
    apart=st.sampled_from([False, False, False, True]),
)


def expected(groups: list[list[Draft]]) -> tuple[list[Outcome | None], list[list[Draft]]]:
    """What becomes of each draft, None for a key used with another body, and what is stored."""
    outcomes, stored, first = list[Outcome | None](), list[list[Draft]](), 0
    keys: dict[str, tuple[bytes, Receipt]] = {}
    for group in groups:
        stored.append([])
        for each in group:
            if each.key in keys:
                digest, receipt = keys[each.key]
                repeat = digest == each.digest and replace(receipt, replayed=True)
                outcomes.append(repeat or None)
                continue
            outcomes.append(Receipt(first, each.count, 1))
            stored[-1].append(each)
            if each.key is not None:
                keys[each.key] = each.digest, Receipt(first, each.count, 1)
            first += each.count
    return outcomes, stored


def check_batch(batch: Batch, parts: list[Draft]) -> None:
    """It holds what these drafts hold, and all that goes with its text is that of its text."""
    assert batch.text == b"".join(part.text for part in parts)
    assert batch.count == sum(part.count for part in parts)
    assert len(parts) == 1 or (batch.count <= MERGED_ITEMS and len(batch.text) <= MERGED_BYTES)
    assert len(parts) == 1 or not any(part.apart for part in parts)
    assert (batch.frame is None) == (len(batch.text) < COMPRESS_FROM)
    assert batch.frame is None or decompress(batch.frame) == batch.text
    assert (batch.heads is None) == (batch.ends is None) == (parts[0].heads is None)
    if batch.heads is not None and batch.ends is not None:
        assert batch.ends.tolist() == line_ends(batch.text).tolist()
        assert carry(batch.heads) == carry(Heads.read(batch.text))


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.lists(made, min_size=1, max_size=12), min_size=1, max_size=4))
def test_what_shares_a_commit_is_stored_in_its_order_and_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Draft]]
) -> None:
    outcomes, stored = expected(groups)
    for engine in ("memory", "sqlite", "replicated"):
        heard: list[Batch] = []
        if engine == "replicated":
            log = replicated(tmp_path_factory.mktemp("log"), MemoryStream())
            log._items.on_applied = heard.extend
        else:
            path = tmp_path_factory.mktemp("log") / "log.db"
            log = MemoryLog() if engine == "memory" else SqliteLog(path)
        found = list[Outcome | None]()
        for number, (group, kept) in enumerate(zip(groups, stored, strict=True)):
            appended = log.append(group, term=1, now=float(number))
            found += [None if isinstance(o, KeyReused) else o for o in appended.outcomes]
            heard += appended.batches
            rest = iter(kept)
            for batch in heard:
                parts = [next(rest)]
                while sum(part.count for part in parts) < batch.count:
                    parts.append(next(rest))
                assert batch.ingested_at == number
                if engine != "replicated":
                    check_batch(batch, parts)
            assert next(rest, None) is None, "all that was stored is told"
            heard.clear()
        assert found == outcomes
        read, after = b"", -1
        while batches := log.read(after, max_bytes=1):
            assert [batch.first_offset for batch in batches] == [after + 1]
            read, after = read + batches[0].text, batches[0].last_offset
        assert read == b"".join(each.text for kept in stored for each in kept)
        if not isinstance(log, MemoryLog):
            log.close()


def test_sqlite_keeps_epoch_items_keys_and_term_over_a_restart(tmp_path: Path) -> None:
    first = SqliteLog(tmp_path / "log.db")
    receipt(first, draft(b"a", key="k"), term=7)
    epoch = first.epoch
    first.close()
    second = SqliteLog(tmp_path / "log.db")
    assert second.epoch == epoch
    assert second.bounds() == (0, 0)
    assert receipt(second, draft(b"a", key="k"), term=7).replayed
    with pytest.raises(FencedOut):
        second.append([draft(b"b")], term=6, now=0.0)
    assert receipt(second, draft(b"b"), term=8).first_offset == 1
    second.close()


def test_sqlite_commits_with_full_sync_in_wal_mode(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    assert log._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert log._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    log.close()
