"""The lease: one entry in a store with compare-and-set; whose claim it took, leads.

On the wire: JSON of `Lease` without its revision, which the store gives. A reign's term is
`term_base` plus the revision of its *claim*. Renewals and releases have later revisions, so every
later claim has a greater term, and no two claims share one.
"""

from __future__ import annotations

import msgspec

from nodes.errors import BadHeartbeat


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What the entry says; no holder is a free lease."""

    holder: str = ""
    url: str = ""
    life: str = ""  # of the holder
    claim: int = 0  # differs between two claims of a life
    acquired: int = 0  # revision of the claim; 0 in the claim itself
    to: str = ""  # for whom it was set free
    revision: int = 0  # 0: there was never one

    @property
    def reign(self) -> int:
        """Revision of the claim; grows from holder to holder."""
        return self.acquired or self.revision


_decoder = msgspec.json.Decoder(Lease)


def encode(lease: Lease) -> bytes:
    """The entry's value."""
    return msgspec.json.encode(msgspec.structs.replace(lease, revision=0))


def decode(value: bytes, revision: int) -> Lease:
    """Read an entry; raises BadHeartbeat, whatever the bytes."""
    try:
        return msgspec.structs.replace(_decoder.decode(value), revision=revision)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadHeartbeat(f"not a lease: {exc}") from exc
