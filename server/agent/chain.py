"""Decisions and outcomes on their way into the log, each holding the hash of the former.

Entries are appended one group at a time: what comes while one group is on its way to the disk is
the next group, chained in the order it came, so the chain's order is the order of the log. The head
is what the log holds: it is read from there at the start, after a failure (what became of a group
is then unknown) and under a new term.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ai_bridge.chain import Head, linked, mark, seal, tail
from context.errors import ContextError
from context.filter import Filter
from context.ingest import encode_checked, make_item
from context.ports import Draft
from context.query import Selection, compile_matcher
from context.request import SearchRequest
from context.search import search

if TYPE_CHECKING:
    from server.agent.node import Node

log = logging.getLogger(__name__)
KIND, KEY = "chain", "head"  # in the state store
SAVE_EVERY_S = 10.0
MAX_GROUP = 500


class _Entry:
    """One entry that waits; `done` gets its data as it was stored."""

    def __init__(self, type_: str, data: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.type, self.data = type_, data
        self.done: asyncio.Future[dict[str, Any]] = loop.create_future()


class Chain:
    """The one writer of a node's chain."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.mark = mark(node.log.epoch)
        self._waiting: list[_Entry] = []
        self._wake = asyncio.Event()
        self._head: Head | None = None  # None: to be read from the log
        self._term = -1
        self._saved: Head = Head()

    def entries(self, *types: str) -> Selection:
        """This chain's entries of these types; blocks without any are passed over whole."""
        ours = compile_matcher(self.mark.decode(), regex=False, ignore_case=False)
        return Selection(Filter(types=frozenset(types)), ours)

    async def append(self, type_: str, data: dict[str, Any]) -> dict[str, Any]:
        """Make an entry durable and return its data with the link that it got.

        Raises what the log raises; it is then unknown whether the entry was stored.
        """
        entry = _Entry(type_, data, self._node.loop)
        self._waiting.append(entry)
        self._wake.set()
        return await entry.done

    async def head(self) -> Head:
        """The newest entry."""
        if self._head is not None:
            return self._head
        return await self._node.scan(find_head, self._node)

    async def run(self) -> None:
        """Append what comes, for ever; the head is saved now and then, and at the end."""
        saved_at = time.monotonic()
        try:
            while True:
                await self._wake.wait()
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                if not self._waiting:
                    self._wake.clear()
                await self._commit(group)
                if time.monotonic() - saved_at > SAVE_EVERY_S:
                    saved_at = time.monotonic()
                    await self._save()
        finally:
            for entry in self._waiting:
                entry.done.cancel()
            await self._save()

    async def _commit(self, group: Sequence[_Entry]) -> None:
        node = self._node
        try:
            while self._head is None or self._term != node.term:
                self._term = node.term  # first: where it changes meanwhile, the head is read again
                self._head = await node.scan(find_head, node)
            stored, lines, head = _sealed(node, group, self._head)
            if lines:
                self._head = None
                await node.append(Draft(len(lines), b"\n".join([*lines, b""]), apart=True))
                self._head = head
        except asyncio.CancelledError:
            for entry in group:
                entry.done.cancel()
            raise
        except Exception as fault:
            for entry in group:
                _fail(entry, fault)
            return
        for entry, line in zip(stored, lines, strict=True):
            if not entry.done.done():
                entry.done.set_result({**entry.data, "chain": _link(node.log.epoch, line)})

    async def _save(self) -> None:
        """Keep the head outside of the log, so that a log cut short is noticed."""
        head = self._head
        if head is None or head == self._saved or not self._node.leadership.leading:
            return
        value = msgspec.json.encode({"seq": head.seq, "hash": head.hash})
        try:
            await asyncio.to_thread(self._node.state.put, KIND, KEY, value, now=time.time())
        except Exception as fault:  # a full disk: decisions go on, and the next time comes
            log.warning("the chain's head was not saved", extra={"reason": str(fault)})
            return
        self._saved = head


def saved_head(node: Node) -> Head:
    """The head as it was last kept outside of the log."""
    stored = node.state.get(KIND, KEY)
    return Head(**msgspec.json.decode(stored.value)) if stored else Head()


def find_head(node: Node) -> Head:
    """The newest entry in the log (in a thread), or the saved one where retention took all."""
    newest, before = saved_head(node), None
    while True:
        asked = SearchRequest(query=mark(node.log.epoch).decode(), limit=1, before=before)
        found = search(node.snapshot(), asked, epoch=node.log.epoch, clock=time.monotonic)
        for raw in found["items"]:
            ends = tail(msgspec.json.decode(raw)["line"].encode())
            if ends is None or ends[0] < newest.seq:
                return newest
            return Head(ends[0], ends[2])
        before = found["next"]
        if before is None:
            return newest


def _sealed(
    node: Node, group: Sequence[_Entry], head: Head
) -> tuple[Sequence[_Entry], list[bytes], Head]:
    """The entries that can be stored, their lines, and the head behind them."""
    try:
        encoded = _encoded(node, group, head)
    except ContextError as wrong:  # of one entry: the others go on
        if len(group) == 1:
            _fail(group[0], wrong)
            return [], [], head
        stored, lines = list[_Entry](), list[bytes]()
        for entry in group:
            fit, sealed, head = _sealed(node, [entry], head)
            stored += fit
            lines += sealed
        return stored, lines, head
    lines = []
    for line in encoded:
        sealed_line, head = seal(line, head)
        lines.append(sealed_line)
    return group, lines, head


def _encoded(node: Node, group: Sequence[_Entry], head: Head) -> list[bytes]:
    """Lines to be sealed, without newlines; raises ContextError where one entry is no item."""
    items = [
        make_item(
            entry.type,
            linked(entry.data, node.log.epoch, head.seq + 1 + n),
            source=node.settings.node_id,
        )
        for n, entry in enumerate(group)
    ]
    return encode_checked(items, node.types, now=time.time()).text.rstrip(b"\n").split(b"\n")


def _link(epoch: str, line: bytes) -> dict[str, Any]:
    ends = tail(line)
    assert ends is not None
    return {"epoch": epoch, "seq": ends[0], "prev": ends[1], "hash": ends[2]}


def _fail(entry: _Entry, fault: Exception) -> None:
    if not entry.done.done():
        entry.done.set_exception(fault)
