"""Followers with one wish in one form, who are sent the same bytes at the same time.

Invariants, which give every follower every item of its wish once and in order:

* A group has a cursor, and so has each follower that is not a member. A member's is the group's.
* Members are offered every frame of the group as it is made, and leave it if they do not take it
  whole; their cursor is then before the frame, or behind it where its rest waits in the connection.
* A follower becomes a member only while its cursor equals the group's and no frame is being sent.
* Whoever is behind reads on from its own cursor: the ring, else the log, never beyond the group's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from context.request import LiveRequest
from context.runs import pieces
from server import runtime
from server.burst import Link, to_all
from server.connections import PARTLY
from server.forms import FRAME_BYTES, Form, Frame
from server.live import Delivery, Gap, Place, Reader

_Found = tuple[Delivery | Gap, int]  # and the offset that it reaches


@dataclass(frozen=True, slots=True)
class Home:
    """Where and how a follower is served."""

    asked: LiveRequest
    form: Form
    link: Link


class Follower:
    """One subscription. `offset` is its cursor while it is no member of its group.

    It is always in exactly one place: a member, parked, in the queue of who is behind or in the
    hands of who serves that, or waiting for its link.
    """

    __slots__ = ("conflate", "gap", "gone", "group", "home", "link", "offset", "was_live")

    def __init__(self, group: Group, place: Place, *, conflate: bool) -> None:
        self.group, self.offset, self.gap = group, place.offset, place.gap
        self.conflate = conflate
        self.was_live = self.gone = False
        self.home: Home | None = None  # where it is to go on
        self.link: Link


class _Members:
    """Who is sent a frame, and how."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self.followers = followers
        self.links = to_all([each.link for each in followers])


class Group:
    """Followers with one wish in one form."""

    def __init__(self, key: tuple[bytes, Form], reader: Reader, offset: int) -> None:
        self.key, self.reader, self.offset = key, reader, offset
        self.form = key[1]
        self.followers = 0  # members or not
        self._members: dict[Follower, None] = {}
        self._known: _Members | None = None  # made of these, until somebody comes or goes
        self._parked: list[Follower] = []
        self._sending = False
        self._lock = runtime.real_lock()  # over nothing that could wait

    def settle(self, follower: Follower) -> bool:
        """Take in a follower that has reached the group, or park one that is ahead of it.

        False where it is behind, and has to go on by itself.
        """
        with self._lock:
            if follower.gone:
                return True
            if follower.home or not self.is_level(follower):
                return False
            if self._sending or follower.offset > self.offset:
                self._parked.append(follower)
            else:
                self._members[follower] = None
                self._known = None
            return True

    def is_level(self, follower: Follower) -> bool:
        """Whether it has all that the group was sent: the check on which no gap depends."""
        return follower.offset >= self.offset

    def leave(self, follower: Follower) -> None:
        """Send it nothing more."""
        with self._lock:
            follower.gone = True
            self._remove(follower)

    def rehome(self, follower: Follower, home: Home) -> bool:
        """Make it go on elsewhere, in its next step; True where that has to be asked for."""
        while True:
            with self._lock:
                if not self._sending:
                    follower.home = home
                    if not self._remove(follower):
                        return False
                    follower.offset = self.offset
                    return True
            time.sleep(0.001)  # only then it is certain how far it has come

    def advance(self, until: int, *, merge: bool, breathe: Callable[[], None]) -> Advance:
        """Send what is new to the members; returns who has left, and who may try to come in."""
        done = Advance([], [])
        while self._awaited(until):
            found, reached = self._new(until, merge=merge)
            if reached == self.offset:
                break
            for frame in self.form.joined(self._frames(found)):
                self._send(frame, done, breathe)
                if not self._members:  # nobody is left for whom the rest could be made
                    break
            else:
                with self._lock:
                    self.offset = reached
        with self._lock:
            done.arriving, self._parked = self._parked, []
        return done

    def _awaited(self, until: int) -> bool:
        """Whether there are members; without any it is at `until` at once, never back."""
        with self._lock:
            if not self._members:
                self.offset = max(self.offset, until)
            return bool(self._members)

    def _new(self, until: int, *, merge: bool) -> tuple[list[_Found], int]:
        """What is there already, about as much as one write may hold, and how far it goes."""
        new: list[_Found] = []
        size, reached = 0, self.offset
        while size < FRAME_BYTES:
            found, at = self.reader.after(reached, until, merge=merge)
            if found is None:
                break
            new.append((found, at))
            reached = at
            if isinstance(found, Gap):
                break
            size += sum(run.nbytes for run in found.runs)
        return new, reached

    def _frames(self, new: Sequence[_Found]) -> Iterator[Frame]:
        for found, at in new:
            if isinstance(found, Gap):
                yield Frame(self.form.gap(found), at)
                continue
            for piece in pieces(found.runs, FRAME_BYTES):
                yield Frame(self.form.items(piece, 0), piece[-1].offsets[-1])

    def _send(self, frame: Frame, done: Advance, breathe: Callable[[], None]) -> None:
        with self._lock:
            self._sending = True
            members = self._known = self._known or _Members(list(self._members))
        left = members.links.offer(frame.data, breathe)
        with self._lock:
            for at, taken in left:
                follower = members.followers[at]
                if self._remove(follower):
                    follower.offset = frame.reaches if taken == PARTLY else self.offset
                    done.left.append(follower)
            self.offset, self._sending = frame.reaches, False
        done.sent += frame.count * (len(members.followers) - len(left))

    def _remove(self, follower: Follower) -> bool:
        """Whether it was a member."""
        if self._members.pop(follower, self) is not None:
            return False
        self._known = None
        return True


@dataclass
class Advance:
    """What one round has done with a group's followers."""

    left: list[Follower]
    arriving: list[Follower]
    sent: int = 0
