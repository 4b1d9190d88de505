"""What nodes tell each other over the engine without storing it: heartbeats, lease, pings.

Subjects: `context.beat` carries a heartbeat, `context.lease` a lease that the store has taken,
`context.ping.ID` is answered by the node ID. All of them may be lost: nothing but speed hangs on
them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from nodes import heartbeat, lease
from nodes.errors import BadHeartbeat
from nodes.heartbeat import Heartbeat
from nodes.lease import Lease

log = logging.getLogger(__name__)
BEAT, LEASE, PING = "context.beat", "context.lease", "context.ping"
PING_S = 0.3


class _Told(msgspec.Struct, frozen=True):
    """A lease with the revision that the store gave it."""

    revision: int
    lease: msgspec.Raw


class Signals:
    """Sends and hears them, on the event loop."""

    def __init__(self, client: Client, node_id: str) -> None:
        self._client, self._id = client, node_id
        self._decode = msgspec.json.Decoder(_Told).decode

    async def listen(
        self, on_beat: Callable[[Heartbeat], None], on_lease: Callable[[Lease], None]
    ) -> None:
        """Call these for what is heard, also from this node itself."""

        async def beat(message: Msg) -> None:
            try:
                on_beat(heartbeat.decode(message.data))
            except BadHeartbeat as exc:
                log.warning("not understood", extra={"reason": exc.detail[:200]})

        async def told(message: Msg) -> None:
            try:
                found = self._decode(message.data)
                on_lease(lease.decode(bytes(found.lease), found.revision))
            except (BadHeartbeat, msgspec.MsgspecError) as exc:
                log.warning("not understood", extra={"reason": str(exc)[:200]})

        async def pong(message: Msg) -> None:
            await message.respond(b"")

        await self._client.subscribe(BEAT, cb=beat)
        await self._client.subscribe(LEASE, cb=told)
        await self._client.subscribe(f"{PING}.{self._id}", cb=pong)

    async def beat(self, own: Heartbeat) -> None:
        """Tell how this node is."""
        await self._send(BEAT, heartbeat.encode(own))

    async def tell(self, taken: Lease) -> None:
        """Tell of a lease that the store has taken."""
        told = _Told(taken.revision, msgspec.Raw(lease.encode(taken)))
        await self._send(LEASE, msgspec.json.encode(told))

    async def ping(self, node: str) -> float | None:
        """Seconds until a node answered; None where the engine knows no connection of it.

        Infinite where it did not answer in time: that says nothing.
        """
        started = time.perf_counter()
        if not self._client.is_connected:
            return float("inf")
        try:
            await self._client.request(f"{PING}.{node}", timeout=PING_S)
        except nats.errors.NoRespondersError:
            return None
        except (TimeoutError, nats.errors.Error, OSError):
            return float("inf")
        return time.perf_counter() - started

    async def _send(self, subject: str, data: bytes) -> None:
        if self._client.is_connected:  # what is told late is not worth telling
            try:
                await self._client.publish(subject, data)
            except (nats.errors.Error, OSError) as exc:
                log.debug("not told", extra={"reason": repr(exc)})
