"""What a node with peers writes to: the cluster's stream; and how it stands for election."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence

import msgspec
import nats.errors
from nats.aio.msg import Msg

from context.casting import CASTING, FIRST
from context.errors import ContextError, NoLeader
from context.items import Item
from context.ports import Receipt
from nodes.adapters.elected import Elected, Reign
from nodes.adapters.lease_nats import LeaseStore
from nodes.adapters.replacing import tell_when_whole
from nodes.adapters.signals_nats import Signals
from nodes.election_events import Rules
from nodes.engine import replicas
from nodes.handoff import HandOffRules
from nodes.heartbeat import Heartbeat
from nodes.membership import Timings
from nodes.protocol import PROTOCOL
from server import problems
from server.agent.cluster import heartbeat
from server.agent.node import Node
from server.agent.refresh import refresh
from server.agent.replication import Replication, join
from server.config import Settings
from server.engine import engine_settings
from shared_storage.adapters.blobs_object_store import ObjectBlobs
from shared_storage.changes import Change

log = logging.getLogger(__name__)
TAKE = "context.take"  # a node's own items on their way to the leader
TAKE_S = 5.0


class Member:
    """One node's log, state and leadership in a cluster; see `server.agent.part`."""

    follows = True

    def __init__(self, settings: Settings, replication: Replication) -> None:
        self._replication, self._client = replication, replication.client
        self.log, self.state = replication.log, replication.state
        told = engine_settings(settings)
        count = replicas(len(told.peers))
        self.blobs = ObjectBlobs(self._client, replicas=count, most=settings.max_body_bytes)
        own = Heartbeat(
            id=settings.node_id,
            url=f"http://{told.own}",
            life=secrets.token_hex(8),
            observer=settings.observer,
            replaces=settings.replace,
        )
        self.leadership = Elected(
            own,
            LeaseStore(self._client, count),
            Signals(self._client, own.id),
            Reign(
                self._begin,
                self._drained,
                lambda: replication.leave(own.id),
                lambda: replication.replica.term,
            ),
            peers=len(told.peers),
            term_base=replication.meta.term_base,
            rules=Rules(
                hand_off=HandOffRules(
                    settings.hand_off_better_by,
                    settings.hand_off_after_s,
                    settings.hand_off_every_s,
                )
            ),
            timings=Timings(settings.heartbeat_s, settings.suspect_s, settings.dead_s),
        )

    async def serve(self, node: Node) -> None:
        """Begin to follow, to be heard and to be chosen."""
        node.pass_on = self._pass_on

        def on_change(change: Change) -> None:
            node.loop.call_soon_threadsafe(refresh, node, change)

        self._replication.serve(self.leadership, node.take, node.spawn, on_change)

        async def take(message: Msg) -> None:
            node.spawn(_taken(node, message))

        await self._client.subscribe(f"{TAKE}.{node.settings.node_id}", cb=take)
        await self.leadership.start(lambda: heartbeat(node))
        if node.settings.replace:
            count = replicas(len(node.settings.peers))
            node.spawn(tell_when_whole(self._client, count))

    async def close(self) -> None:
        """Leave the cluster; the copies remember how far they are."""
        await self.leadership.close()
        await self._replication.close()

    async def _begin(self, term: int) -> None:
        await self._replication.fence(term)

    async def _drained(self) -> None:
        """Whoever holds the lock is the write under way; later ones are refused."""
        await asyncio.to_thread(self._replication.settle)

    async def _pass_on(self, items: Sequence[Item], key: str | None, urgent: bool) -> Receipt:
        leader = self.leadership.leader
        if leader is None:
            raise NoLeader("no node leads now; retry in a moment")
        schema = self.leadership.speaks
        cast = [cast_item(item, PROTOCOL, schema) for item in items]
        asked = msgspec.json.encode(_Asked(cast, key, urgent, schema))
        try:
            answer = await self._client.request(f"{TAKE}.{leader.id}", asked, timeout=TAKE_S)
        except (TimeoutError, nats.errors.Error, OSError) as exc:
            raise NoLeader(f"the leader {leader.id} does not answer ({exc!r})") from exc
        told = msgspec.json.decode(answer.data, type=_Answer)
        if told.receipt is None:
            raise NoLeader(f"the leader {leader.id} did not store it: {told.detail}")
        return told.receipt


class _Asked(msgspec.Struct):
    items: list[Item]
    key: str | None = None
    urgent: bool = False
    schema: int = FIRST


class _Answer(msgspec.Struct):
    receipt: Receipt | None = None
    detail: str = ""


async def _taken(node: Node, message: Msg) -> None:
    """Store what another node has measured; the same rules hold as for everybody."""
    try:
        if not node.leadership.leading:
            raise NoLeader("this node does not lead")
        asked = msgspec.json.decode(message.data, type=_Asked)
        items = [cast_item(item, asked.schema, PROTOCOL) for item in asked.items]
        receipt = await node.append_items(items, key=asked.key, urgent=asked.urgent)
        answer = _Answer(receipt)
    except (ContextError, msgspec.MsgspecError) as exc:
        answer = _Answer(detail=problems.describe(exc)["detail"])
    await message.respond(msgspec.json.encode(answer))


def cast_item(item: Item, have: int, want: int) -> Item:
    """An item in another node's schema, or from it; as it is where nothing differs."""
    data = CASTING.data(item.type, item.data, have, want)
    return item if data is item.data else msgspec.structs.replace(item, data=data)


async def open_part(settings: Settings, term: int) -> Member:
    """Be part of the cluster; waits for a majority where this node never was.

    Raises ForeignHistory, PeersWrong, SecretMissing.
    """
    return Member(settings, await join(settings, term))
