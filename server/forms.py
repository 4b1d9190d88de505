"""What deliveries look like on the wire: one frame for all who follow the same wish in one form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from context.runs import Run
from server.live import Gap
from server.websocket import frame

FRAME_BYTES = 1 << 16  # of items in a frame, unless one alone is larger
Runs = Sequence[Run]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a transport sends at once, the offset that it reaches, and how many frames it is."""

    data: Any
    reaches: int
    count: int = 1


class Form(Protocol):
    """How one transport writes. Equal and hashable by what it writes."""

    def items(self, runs: Runs, folded: int) -> Any:
        """A frame of items in order; `folded` more were left out for newer ones."""

    def gap(self, gap: Gap) -> Any:
        """A frame that tells of a gap."""

    def joined(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        """Runs of frames that go out in one write, so that one call of the kernel carries many."""


def joined(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Frames of bytes in runs of a bounded size."""
    run: list[Frame] = []
    size = 0
    for each in frames:
        if run and size + len(each.data) > FRAME_BYTES:
            yield _one(run)
            run, size = [], 0
        run.append(each)
        size += len(each.data)
    if run:
        yield _one(run)


def _one(run: Sequence[Frame]) -> Frame:
    return Frame(b"".join([each.data for each in run]), run[-1].reaches, len(run))


def told(gap: Gap) -> dict[str, str]:
    """A gap as clients are told; a `reason` where it is not that history is gone."""
    document = {"missed_from": gap.missed_from, "missed_to": gap.missed_to}
    return document | ({"reason": gap.reason} if gap.reason else {})


@dataclass(frozen=True, slots=True)
class EventStream:
    """Server-Sent Events: one event an item. Item JSON holds no raw newline: one line is enough."""

    epoch: str

    def items(self, runs: Runs, folded: int) -> bytes:
        """One `context` event an item, and before them `folded` where some were left out."""
        before = (b"event: context\nid: %b:" % self.epoch.encode(), b"\ndata: ")
        events = b"".join([run.written(before, b"\n\n") for run in runs])
        return b'event: folded\ndata: {"folded":%d}\n\n%b' % (folded, events) if folded else events

    def gap(self, gap: Gap) -> bytes:
        """The `gap` event; its id is where reading continues: no reconnect tells it twice."""
        return b"event: gap\nid: %b\ndata: %b\n\n" % (
            gap.missed_to.encode(),
            msgspec.json.encode(told(gap)),
        )

    def joined(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        """Runs of events."""
        return joined(frames)


@dataclass(frozen=True, slots=True)
class SocketIo:
    """A Socket.IO event as its frame on a WebSocket."""

    epoch: str
    subscription: str

    def items(self, runs: Runs, folded: int) -> bytes:
        """A `context` event."""
        head = '42["context",{"subscription":"%s","cursor":"%s:%d",%s"items":['
        more = f'"folded":{folded},' if folded else ""
        values = (self.subscription, self.epoch, runs[-1].offsets[-1], more)
        items = b"".join([run.written((b"",), b",") for run in runs])
        return frame(b"".join(((head % values).encode(), items[:-1], b"]}]")))

    def gap(self, gap: Gap) -> bytes:
        """A `gap` event."""
        event = ["gap", {"subscription": self.subscription, **told(gap)}]
        return frame(b"42" + msgspec.json.encode(event))

    def joined(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        """Runs of WebSocket frames: each is a message of its own all the same."""
        return joined(frames)


@dataclass(frozen=True, slots=True)
class Emitted:
    """Name and argument of a Socket.IO event, for python-socketio to write: polling, or acks."""

    epoch: str
    subscription: str

    def items(self, runs: Runs, folded: int) -> tuple[str, dict[str, Any]]:
        """A `context` event; items pass through without being decoded."""
        event: dict[str, Any] = {
            "subscription": self.subscription,
            "cursor": f"{self.epoch}:{runs[-1].offsets[-1]}",
        }
        if folded:
            event["folded"] = folded
        items = [msgspec.Raw(item) for run in runs for _, item in run.items()]
        return "context", event | {"items": items}

    def gap(self, gap: Gap) -> tuple[str, dict[str, Any]]:
        """A `gap` event."""
        return "gap", {"subscription": self.subscription, **told(gap)}

    def joined(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        """Each by itself: python-socketio writes them."""
        return frames
