"""What outcomes taught, durable: at its start a node folds only those behind its newest snapshot.

A snapshot is this node's own, made of its own copy of the state: nothing of it is sent to or taken
from another node. It is used where it was written by this very program and where the outcome that
it ends with stands at the same place of the state now, byte by byte; else the log tells why not,
and all outcomes are folded. Files in the folder: `weights`, the SHA-256 of the rest and the rest
(`ai_bridge.snapshot.Head`), and `judged-N`, which are written once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from ai_bridge.errors import InvalidRecord
from ai_bridge.ledger import Ledger
from ai_bridge.snapshot import VERSION, Head, Piece, judged_since, ledger_of, state_of
from shared_storage.adapters.durable import replace_file
from shared_storage.ports import StateStore, Versioned

log = logging.getLogger(__name__)
OUTCOME, LEARNED = "ai_outcome", "learned"
EVERY = 10_000  # outcomes from one snapshot to the next
PAGE = 2_000
_DIGEST_BYTES = 32


class Unfit(Exception):
    """A snapshot that is not of these outcomes, or damaged."""


class Learned:
    """Keeps snapshots of what was learned. `note` and `recall` are not for several threads."""

    def __init__(
        self, folder: Path, state: StateStore, *, code: str, epoch: str, every: int = EVERY
    ) -> None:
        self._folder, self._state = folder, state
        self._code, self._epoch, self._every = code, epoch, every
        self._pieces: list[Piece] = []
        self._last = ("", b"")  # key and value of the newest outcome learned
        self._writing: threading.Thread | None = None

    @property
    def saved(self) -> int:
        """Outcomes in the newest snapshot."""
        return sum(piece.count for piece in self._pieces)

    def recall(self) -> Ledger:
        """The ledger of all stored outcomes."""
        try:
            ledger = self._load()
        except Unfit as why:
            log.warning("learning anew from all outcomes", extra={"reason": str(why)})
            ledger, self._pieces = Ledger(), []
        for each in self._behind(ledger.outcomes):
            event = msgspec.json.decode(each.value)
            ledger.apply(event, event["outcome"])
            self._last = each.key, each.value
        if ledger.outcomes - self.saved >= self._every:
            self._save(ledger)
        return ledger

    def note(self, ledger: Ledger, key: str, value: bytes) -> None:
        """An outcome was stored and learned; writes a snapshot, in a thread, where one is due."""
        self._last = key, value
        busy = self._writing is not None and self._writing.is_alive()
        if ledger.outcomes - self.saved >= self._every and not busy:
            self._save(ledger)

    def settle(self) -> None:
        """Wait for a snapshot that is being written."""
        if self._writing is not None:
            self._writing.join()

    def _behind(self, count: int) -> Iterator[Versioned]:
        """The outcomes behind the first `count`."""
        while page := self._state.list(OUTCOME, limit=PAGE, newest_first=False, skip=count):
            yield from page
            count += len(page)

    # --- writing ---

    def _save(self, ledger: Ledger) -> None:
        """Write what is known now; the rest of the work is done in a thread."""
        key, value = self._last
        judged, state = judged_since(ledger, self.saved), state_of(ledger)
        outcomes = ledger.outcomes

        def write() -> None:
            try:
                self._check(outcomes, key, sha256(value).hexdigest())
                self._write(judged, state, key, value)
            except (Unfit, OSError) as why:
                log.warning("what was learned was not saved", extra={"reason": str(why)})

        self._writing = threading.Thread(target=write, name="learned", daemon=True)
        self._writing.start()

    def _write(
        self, judged: list[tuple[str, str]], state: dict[str, object], key: str, value: bytes
    ) -> None:
        self._folder.mkdir(exist_ok=True)
        body, first = msgspec.msgpack.encode(judged), self.saved
        pieces = [*self._pieces, Piece(first, len(judged), sha256(body).hexdigest())]
        replace_file(self._folder / _piece(first), body)
        head = Head(
            code=self._code,
            epoch=self._epoch,
            outcomes=first + len(judged),
            key=key,
            digest=sha256(value).hexdigest(),
            pieces=pieces,
            state=state,
        )
        rest = msgspec.msgpack.encode(head)
        replace_file(self._folder / "weights", sha256(rest).digest() + rest)
        self._pieces = pieces

    # --- reading ---

    def _load(self) -> Ledger:
        path = self._folder / "weights"
        if not path.exists():
            return Ledger()
        try:
            told = path.read_bytes()
            if sha256(told[_DIGEST_BYTES:]).digest() != told[:_DIGEST_BYTES]:
                raise Unfit("the snapshot is damaged")
            head = msgspec.msgpack.decode(told[_DIGEST_BYTES:], type=Head)
            if (head.version, head.code, head.epoch) != (VERSION, self._code, self._epoch):
                raise Unfit("the snapshot is of another program or another log")
            self._check(head.outcomes, head.key, head.digest)
            ledger = ledger_of(head.state, self._judged(head))
        except (OSError, msgspec.MsgspecError, InvalidRecord) as wrong:
            raise Unfit(f"the snapshot cannot be read: {wrong}") from wrong
        if ledger.outcomes != head.outcomes:
            raise Unfit(f"it holds {ledger.outcomes} of {head.outcomes} outcomes")
        self._pieces = head.pieces
        return ledger

    def _judged(self, head: Head) -> Iterator[tuple[str, str]]:
        for piece in head.pieces:
            body = (self._folder / _piece(piece.first)).read_bytes()
            if sha256(body).hexdigest() != piece.digest:
                raise Unfit(f"{_piece(piece.first)} is damaged")
            yield from msgspec.msgpack.decode(body, type=list[tuple[str, str]])

    def _check(self, count: int, key: str, digest: str) -> None:
        """Whether the outcome numbered `count` (from 1) of the state is this one."""
        found = self._state.list(OUTCOME, limit=1, newest_first=False, skip=count - 1)
        if not found or found[0].key != key or sha256(found[0].value).hexdigest() != digest:
            raise Unfit(f"outcome {count} of this node's state is not {key}")


def _piece(first: int) -> str:
    return f"judged-{first}"
