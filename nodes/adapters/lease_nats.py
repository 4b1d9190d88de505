"""The lease as one key of a bucket in the engine: read by its revision, written by compare-and-set.

The bucket is one of its own, so that nothing but claims, renewals and releases count its revisions.
"""

from __future__ import annotations

import nats.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
)
from nats.js.kv import KeyValue

from nodes.errors import LeaseUnreachable
from nodes.lease import Lease, decode, encode

BUCKET = "context-lease"
_KEY = "lease"
ASK_S = 1.0  # an engine without a majority does not answer at all
_FAULTS = (TimeoutError, nats.errors.Error, APIError, OSError)


class LeaseStore:
    """Reads and writes the lease; on the event loop."""

    def __init__(self, client: Client, replicas: int) -> None:
        self._client, self._replicas = client, replicas
        self._found: KeyValue | None = None

    async def read(self) -> Lease:
        """The lease as the bucket's leader has it; raises LeaseUnreachable, BadHeartbeat."""
        try:
            entry = await (await self._bucket()).get(_KEY)
        except KeyNotFoundError:
            return Lease()
        except _FAULTS as exc:
            raise LeaseUnreachable(f"no majority of engines answers ({exc!r})") from exc
        return decode(entry.value or b"", entry.revision or 0)

    async def write(self, lease: Lease, *, expected: int) -> int | None:
        """Put the lease where the revision is `expected`: the new revision, None where it was not.

        Raises LeaseUnreachable: it may have been taken all the same.
        """
        if not self._client.is_connected:  # else the client keeps it, to send it some day
            raise LeaseUnreachable("the engine is not connected")
        try:
            return await (await self._bucket()).update(_KEY, encode(lease), last=expected)
        except KeyWrongLastSequenceError:
            return None
        except _FAULTS as exc:
            raise LeaseUnreachable(f"no majority of engines answers ({exc!r})") from exc

    async def _bucket(self) -> KeyValue:
        """The bucket, made where missing: making the same one twice is no error."""
        if self._found is None:
            js = self._client.jetstream(timeout=ASK_S)
            try:
                self._found = await js.key_value(BUCKET)
            except BucketNotFoundError:
                wanted = KeyValueConfig(
                    bucket=BUCKET, history=1, storage=StorageType.FILE, replicas=self._replicas
                )
                self._found = await js.create_key_value(wanted)
        return self._found
