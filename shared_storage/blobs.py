"""What all stores of blobs check: names, sizes, digests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from shared_storage.errors import BlobDiffers, BlobTooLarge, NoBlob
from shared_storage.ports import Blob

MAX_BLOB_BYTES = 4 << 30
PIECE_BYTES = 1 << 18
_DIGEST = re.compile(r"[0-9a-f]{64}")


def named(digest: str) -> str:
    """The digest, if it is one; raises NoBlob: no blob has another name."""
    if not _DIGEST.fullmatch(digest):
        raise NoBlob(f"{digest[:80]!r} is no SHA-256 in 64 of 0-9 and a-f")
    return digest


class Counted:
    """Passes pieces on, counts and hashes them; raises BlobTooLarge beyond `most` bytes."""

    def __init__(self, pieces: Iterable[bytes], most: int) -> None:
        self._pieces, self._most = pieces, most
        self._hash, self._size = hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._size += len(piece)
            if self._size > self._most:
                raise BlobTooLarge(f"a blob has at most {self._most} bytes")
            self._hash.update(piece)
            yield piece

    def blob(self, expected: str | None) -> Blob:
        """What went through; raises BlobDiffers where another digest is expected."""
        digest = self._hash.hexdigest()
        if expected is not None and expected != digest:
            raise BlobDiffers(f"the bytes have the digest {digest}, not {expected[:80]}")
        return Blob(digest, self._size)
