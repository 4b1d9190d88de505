"""What a cluster is: written once, by who founds it, into a bucket that a majority stores."""

from __future__ import annotations

import msgspec
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

from shared_storage.errors import StreamDown

BUCKET = "context-cluster"
_KEY = "cluster"
ASK_S = 1.5  # an engine without a majority does not answer at all


class ClusterMeta(msgspec.Struct, frozen=True):
    """A cluster's identity."""

    epoch: str
    term_base: int  # terms of the cluster are above it, so they only grow
    founder: str  # id of the node
    ready: bool = False  # whether the founder's history is in the stream, whole


async def read_meta(client: Client, replicas: int) -> ClusterMeta | None:
    """What is known of the cluster; None before anyone founds it. Raises StreamDown."""
    try:
        entry = await (await _bucket(client, replicas)).get(_KEY)
    except KeyNotFoundError:
        return None
    except (TimeoutError, nats.errors.Error, APIError, OSError) as exc:
        raise StreamDown(f"no majority of engines answers yet ({_why(exc)})") from exc
    return msgspec.json.decode(entry.value or b"", type=ClusterMeta)


async def found(client: Client, replicas: int, meta: ClusterMeta) -> bool:
    """Write it where there is none; False where another node came first. Raises StreamDown."""
    try:
        await (await _bucket(client, replicas)).create(_KEY, msgspec.json.encode(meta))
    except KeyWrongLastSequenceError:
        return False
    except (TimeoutError, nats.errors.Error, APIError, OSError) as exc:
        raise StreamDown(f"no majority of engines answers ({_why(exc)})") from exc
    return True


async def finish(client: Client, replicas: int, meta: ClusterMeta) -> None:
    """Say that the founder's history is in the stream. Raises StreamDown."""
    done = msgspec.structs.replace(meta, ready=True)
    try:
        await (await _bucket(client, replicas)).put(_KEY, msgspec.json.encode(done))
    except (TimeoutError, nats.errors.Error, APIError, OSError) as exc:
        raise StreamDown(f"no majority of engines answers ({_why(exc)})") from exc


def _why(exc: Exception) -> str:
    """What the engine said, such as that there are fewer engines than replicas."""
    return str(exc.description) if isinstance(exc, APIError) else repr(exc)


async def _bucket(client: Client, replicas: int) -> KeyValue:
    """The bucket, made where missing: making the same one twice is no error."""
    js = client.jetstream(timeout=ASK_S)
    try:
        return await js.key_value(BUCKET)
    except BucketNotFoundError:
        wanted = KeyValueConfig(
            bucket=BUCKET, history=1, storage=StorageType.FILE, replicas=replicas
        )
        return await js.create_key_value(wanted)
