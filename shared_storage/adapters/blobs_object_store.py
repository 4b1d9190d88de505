"""Blobs in JetStream's object store: a bucket that every node reaches, kept by as many engines as
the stream.

The client runs on the event loop; calls come from other threads and wait for it. A blob is hashed
into a temporary file first, as its digest is its name. The engine's client
checks the digest of what it reads.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import IO, Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js.api import ObjectStoreConfig, StorageType
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    NotFoundError,
)
from nats.js.object_store import ObjectStore

from shared_storage.blobs import MAX_BLOB_BYTES, PIECE_BYTES, Counted, named
from shared_storage.errors import NoBlob, StreamDown
from shared_storage.ports import Blob

T = TypeVar("T")
BUCKET = "context-blobs"
ASK_S = 5.0
IN_MEMORY = 1 << 20  # bytes; larger ones lie in a temporary file


class ObjectBlobs:
    """The BlobStore port on one bucket; make it on the event loop."""

    def __init__(
        self,
        client: Client,
        *,
        replicas: int,
        bucket: str = BUCKET,
        most: int = MAX_BLOB_BYTES,
    ) -> None:
        """`most` bounds the bytes of one blob."""
        self._js = client.jetstream(timeout=ASK_S)
        self._wanted = ObjectStoreConfig(bucket=bucket, storage=StorageType.FILE, replicas=replicas)
        self._bucket, self._most = bucket, most
        self._loop = asyncio.get_running_loop()

    def put(self, pieces: Iterable[bytes], *, expected: str | None = None) -> Blob:
        """See `shared_storage.ports.BlobStore`."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
            counted = Counted(pieces, self._most)
            for piece in counted:
                file.write(piece)
            blob = counted.blob(expected)
            file.seek(0)
            self._wait(self._put(blob.digest, file))
        return blob

    def get(self, digest: str) -> Iterator[bytes]:
        """See `shared_storage.ports.BlobStore`."""
        file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed by `_pieces`
        try:
            self._wait(self._get(named(digest), file))
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return _pieces(file)

    def delete(self, digest: str) -> bool:
        """See `shared_storage.ports.BlobStore`."""
        return self._wait(self._delete(named(digest)))

    def list(self) -> Sequence[Blob]:
        """See `shared_storage.ports.BlobStore`."""
        return sorted(self._wait(self._list()))

    async def _put(self, digest: str, file: IO[bytes]) -> None:
        store = await self._open()
        try:
            await store.get_info(digest)
        except NotFoundError:
            await store.put(digest, file)  # type: ignore[arg-type] # it only reads it

    async def _get(self, digest: str, file: IO[bytes]) -> None:
        try:
            await (await self._open()).get(digest, writeinto=file)  # type: ignore[arg-type]
        except NotFoundError as exc:
            raise NoBlob(f"there is no blob {digest}") from exc

    async def _delete(self, digest: str) -> bool:
        store = await self._open()
        try:
            await store.get_info(digest)
        except NotFoundError:
            return False
        await store.delete(digest)
        return True

    async def _list(self) -> Sequence[Blob]:
        try:
            found = await (await self._open()).list()
        except NotFoundError:
            return []
        return [Blob(each.name, each.size or 0) for each in found if not each.deleted]

    async def _open(self) -> ObjectStore:
        """The bucket, made where missing: making the same one twice is no error."""
        try:
            return await self._js.object_store(self._bucket)
        except BucketNotFoundError:
            return await self._js.create_object_store(self._bucket, self._wanted)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except (TimeoutError, nats.errors.Error, APIError, OSError) as exc:
            raise StreamDown(f"the engine does not answer ({exc!r})") from exc


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        yield from iter(lambda: file.read(PIECE_BYTES), b"")
