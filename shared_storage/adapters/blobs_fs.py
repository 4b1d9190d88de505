"""Blobs as files, named by their digest, in folders by its first two characters.

A blob is written beside, synced and then renamed, so a name is never there with half of its bytes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from shared_storage.adapters.durable import sync_folder
from shared_storage.blobs import MAX_BLOB_BYTES, PIECE_BYTES, Counted, named
from shared_storage.errors import NoBlob
from shared_storage.ports import Blob

_DRAFT = ".new"


class FileBlobs:
    """The BlobStore port on a folder of its own."""

    def __init__(self, folder: Path, *, most: int = MAX_BLOB_BYTES) -> None:
        """`most` bounds the bytes of one blob; drafts that a crash left are removed."""
        self._folder, self._most = folder, most
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob(f"*{_DRAFT}"):
            draft.unlink()

    def put(self, pieces: Iterable[bytes], *, expected: str | None = None) -> Blob:
        """See `shared_storage.ports.BlobStore`."""
        draft, counted = (
            self._folder / f"{secrets.token_hex(8)}{_DRAFT}",
            Counted(pieces, self._most),
        )
        try:
            with draft.open("xb") as file:
                for piece in counted:
                    file.write(piece)
                blob = counted.blob(expected)
                file.flush()
                os.fsync(file.fileno())
            path = self._path(blob.digest)
            path.parent.mkdir(exist_ok=True)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        for folder in (path.parent, self._folder):
            sync_folder(folder)
        return blob

    def get(self, digest: str) -> Iterator[bytes]:
        """See `shared_storage.ports.BlobStore`."""
        try:
            file = self._path(named(digest)).open("rb")
        except FileNotFoundError:
            raise NoBlob(f"there is no blob {digest}") from None
        return _read(file, digest)

    def delete(self, digest: str) -> bool:
        """See `shared_storage.ports.BlobStore`."""
        path = self._path(named(digest))
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync_folder(path.parent)
        return True

    def list(self) -> Sequence[Blob]:
        """See `shared_storage.ports.BlobStore`."""
        found = (path for path in self._folder.glob("??/*") if path.is_file())
        return sorted(Blob(path.name, path.stat().st_size) for path in found)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


def _read(file: BinaryIO, digest: str) -> Iterator[bytes]:
    with file:
        counted = Counted(iter(lambda: file.read(PIECE_BYTES), b""), MAX_BLOB_BYTES)
        yield from counted
        counted.blob(digest)
