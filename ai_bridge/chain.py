"""A hash chain over stored lines: each entry holds the hash of the former one, and its own.

An entry is a line of the log whose `data` ends with

    "chain":{"epoch":E,"seq":N,"prev":P,"hash":H}

E is the log's epoch, N counts the entries from 0, P is H of entry N - 1 (64 zeros for entry 0), and
H is the SHA-256, in hex, of the line's bytes up to and without `,"hash":`. The line is hashed as it
is stored: nothing is decoded or encoded again, so there is one canonical form (docs/decisions.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

NO_HASH = "0" * 64  # what the first entry follows
BEGINNING = b'{"type":"ai_'  # of every entry; it shares its batch with other entries alone
_TAIL = re.compile(
    rb'"seq":(0|[1-9]\d{0,17}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\}\}'
)
_HASH_BYTES = len(f',"hash":"{NO_HASH}"}}}}}}')
_TAIL_BYTES = _HASH_BYTES + len(f'"seq":{10**17},"prev":"{NO_HASH}"')


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a chain; `seq` -1 before the first."""

    seq: int = -1
    hash: str = NO_HASH


def mark(epoch: str) -> bytes:
    """Bytes that stand in every entry of this log's chain, and that nobody else may store."""
    return f'"chain":{{"epoch":"{epoch}",'.encode()


def linked(data: dict[str, Any], epoch: str, seq: int) -> dict[str, Any]:
    """The data of an entry to be; `seal` fills in what its hashes are."""
    link = {"epoch": epoch, "seq": seq, "prev": NO_HASH, "hash": NO_HASH}
    return {**data, "chain": link}


def seal(line: bytes, head: Head) -> tuple[bytes, Head]:
    """Write the former hash and its own into an encoded entry (without newline).

    Returns the entry's line and the chain's new head. Raises ValueError where the line is none that
    `linked` began after `head`.
    """
    found = tail(line)
    if found is None or found[0] != head.seq + 1:
        raise ValueError(f"this line is not entry {head.seq + 1} of a chain")
    prev = f'"prev":"{head.hash}"'.encode()
    body = line[: len(line) - _HASH_BYTES - len(prev)] + prev
    digest = sha256(body).hexdigest()
    return body + f',"hash":"{digest}"}}}}}}'.encode(), Head(head.seq + 1, digest)


def tail(line: bytes) -> tuple[int, str, str] | None:
    """What the end of a line claims: seq, prev and hash; None where it does not end as entries."""
    found = _TAIL.search(line, max(0, len(line) - _TAIL_BYTES))
    if found is None or found.end() != len(line):
        return None
    return int(found[1]), found[2].decode(), found[3].decode()


def is_whole(line: bytes) -> bool:
    """Whether an entry's bytes give the hash that it holds."""
    found = tail(line)
    return found is not None and sha256(line[:-_HASH_BYTES]).hexdigest() == found[2]
