"""Verification of a chain: walk over stored lines in the order of the log and tell what is wrong.

What a walk finds: any changed byte of an entry, entries removed, added, repeated or put in another
order. What it cannot find alone: that the newest entries were cut off, or that all after some point
was written anew by somebody with access to the storage. For that a head (seq and hash) has to be
kept elsewhere and given as `expected`. Entries before the oldest one that is kept (retention) are
vouched for by its `prev`, the *anchor*: compare it with a head kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ai_bridge.chain import NO_HASH, Head, is_whole, mark, tail
from ai_bridge.consensus import replay
from ai_bridge.errors import BridgeError

MAX_PROBLEMS = 100  # told one by one; the rest is counted
_ENDS = b'","hash":"'  # stands near the end of every entry, behind prev
Ranges = Sequence[tuple[int, int]]  # first and last offset of each


def holes(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets in none of the spans (first and last of each) from 0 up to the last of them."""
    found, following = [], 0
    for first, last in sorted(spans):
        if first > following:
            found.append((following, first - 1))
        following = max(following, last + 1)
    return found


class Problem(msgspec.Struct, frozen=True):
    """Something wrong, at or before an offset.

    `kind`: altered, missing, order, link, head, lost, or replay.
    """

    kind: str
    offset: int
    seq: int
    detail: str


class Report(msgspec.Struct, kw_only=True):
    """What a walk has found.

    `anchor` is what the oldest kept entry follows, `gaps` are retention's, and `ok` is false
    where there is any problem; `more_problems` were not listed.
    """

    ok: bool
    epoch: str
    entries: int
    decisions: int
    replayed: int
    head: dict[str, Any]
    anchor: dict[str, Any]
    gaps: list[dict[str, Any]]
    problems: list[Problem]
    more_problems: int


class Walk:
    """Takes lines in order; `finish` tells. Needs constant memory.

    Parameters
    ----------
    epoch : of the log
    dropped : offsets that retention let go; entries in them are not missed
    lost : offsets of damaged blocks; entries in them are missed, and said to be lost
    """

    def __init__(self, epoch: str, *, dropped: Ranges = (), lost: Ranges = ()) -> None:
        self._epoch, self._mark = epoch, mark(epoch)
        self._dropped, self.lost = dropped, lost  # what is lost may become known on the way
        self._seq, self._hash, self._offset = -1, NO_HASH, -1
        self._sure = True  # the former entry is whole, so its hash is what the next must follow
        self._anchor = Head()
        self._wanted: dict[int, str] = {}
        self._problems: list[Problem] = []
        self._more = 0
        self._gaps: list[dict[str, Any]] = []
        self.seen = self.entries = self.decisions = self.replayed = 0

    def expect(self, head: Head) -> None:
        """Demand that the chain holds this entry, as kept elsewhere."""
        if head.seq >= 0:
            self._wanted[head.seq] = head.hash

    def see(self, offset: int, line: bytes) -> None:
        """Take the next line (without newline) of the log; what is no entry is passed over."""
        self.seen += 1
        found, ours = tail(line), self._mark in line
        if not ours and (found is None or not self._follows(found)):
            return
        self.entries += 1
        if found is None or not ours or not is_whole(line):
            self._altered(offset, found)
            return
        seq, prev, digest = found
        self._link(offset, seq, prev)
        self._seq, self._hash, self._offset, self._sure = seq, digest, offset, True
        wanted = self._wanted.pop(seq, digest)
        if wanted != digest:
            self._tell("head", offset, f"entry {seq} is not the one that is kept elsewhere")
        self._replay(offset, line)

    def see_text(self, first_offset: int, text: bytes) -> None:
        """Take lines that follow each other, each ended by a newline; only some are looked at:

        those that have our mark, or could end as an entry does.
        """
        start = passed = 0
        places = {needle: text.find(needle) for needle in (self._mark, _ENDS)}
        while (at := min((place for place in places.values() if place >= 0), default=-1)) >= 0:
            begin = text.rfind(b"\n", 0, at) + 1
            end = text.find(b"\n", at)
            end = len(text) if end < 0 else end
            passed += text.count(b"\n", start, begin)
            self.see(first_offset + passed, text[begin:end])
            start, passed = end + 1, passed + 1
            for needle, place in places.items():
                if 0 <= place < start:
                    places[needle] = text.find(needle, start)

    def finish(self) -> Report:
        """What was found; heads that did not come by are missed now."""
        for seq in sorted(self._wanted):
            if self._covers(self._dropped, self._offset, 1 << 62) and seq > self._seq:
                continue  # retention let go of the newest entries
            if seq > self._seq:
                detail = f"the chain ends at entry {self._seq}, though entry {seq} was written"
                self._tell("head", self._offset, detail)
            elif seq > self._anchor.seq and not self._gaps:
                self._tell("head", self._offset, f"entry {seq}, kept elsewhere, is not whole")
        return Report(
            ok=not self._problems,
            epoch=self._epoch,
            entries=self.entries,
            decisions=self.decisions,
            replayed=self.replayed,
            head={"seq": self._seq, "hash": self._hash, "offset": self._offset},
            anchor={"seq": self._anchor.seq, "hash": self._anchor.hash},
            gaps=self._gaps,
            problems=self._problems,
            more_problems=self._more,
        )

    def _follows(self, found: tuple[int, str, str]) -> bool:
        """Whether a line that bears no mark of ours stands where our next entry belongs."""
        return self.entries > 0 and (found[0] == self._seq + 1 or found[1] == self._hash)

    def _altered(self, offset: int, found: tuple[int, str, str] | None) -> None:
        first = self.entries == 1 and self._covers(self._dropped, -1, offset)
        self._seq = found[0] if found and first else self._seq + 1
        self._hash, self._offset, self._sure = found[2] if found else NO_HASH, offset, False
        self._tell("altered", offset, f"entry {self._seq} is not as it was written")

    def _link(self, offset: int, seq: int, prev: str) -> None:
        """Compare an entry with the one before it."""
        missed = f"entries {self._seq + 1} to {seq - 1}"
        if seq > self._seq + 1 and self._covers(self._dropped, self._offset, offset):
            if self.entries == 1:
                self._anchor = Head(seq - 1, prev)
            else:
                self._gaps.append({"first_seq": self._seq + 1, "last_seq": seq - 1, "prev": prev})
        elif seq > self._seq + 1 and self._covers(self.lost, self._offset, offset):
            self._tell("lost", offset, f"{missed} were in a damaged block", seq)
        elif seq > self._seq + 1:
            self._tell("missing", offset, f"{missed} are missing before this one", seq)
        elif seq <= self._seq:
            self._tell("order", offset, f"entry {seq} comes after entry {self._seq}", seq)
        elif prev != self._hash and self._sure:
            detail = f"entry {seq} was not written after the entry {self._seq} that stands here"
            self._tell("link", offset, detail, seq)

    def _replay(self, offset: int, line: bytes) -> None:
        """A whole decision must recompute to its own bits."""
        if not line.startswith(b'{"type":"ai_decision",'):
            return
        self.decisions += 1
        try:
            again = replay(msgspec.json.decode(line)["data"])["identical"]
        except BridgeError as wrong:
            self._tell("replay", offset, f"entry {self._seq} cannot be replayed: {wrong}")
            return
        if again:
            self.replayed += 1
        else:
            self._tell("replay", offset, f"entry {self._seq} replays to another decision")

    def _covers(self, ranges: Ranges, after: int, before: int) -> bool:
        return any(first < before and last > after for first, last in ranges)

    def _tell(self, kind: str, offset: int, detail: str, seq: int | None = None) -> None:
        if len(self._problems) == MAX_PROBLEMS:
            self._more += 1
            return
        self._problems.append(Problem(kind, offset, self._seq if seq is None else seq, detail))
