"""A node takes the place of one that is gone for good: that one's engine is removed.

Without that, every stream would for ever wait for the replica that the lost engine had, and the
next loss would stop the cluster. Once it is removed, the engines choose another one for each of its
replicas: the new node's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.js.api import ClusterInfo
from nats.js.errors import APIError

from nodes.adapters.nats_client import connect
from nodes.engine import SYSTEM_USER, Address, EngineSettings
from nodes.errors import NodeRuns

log = logging.getLogger(__name__)
PING = "$SYS.REQ.SERVER.PING"
REMOVE = "$JS.API.SERVER.REMOVE"
NAMES = "$JS.API.STREAM.NAMES"
HEAR_S = 1.0  # engines that run answer within
ASK_S = 2.0
AGAIN_S = 0.25
NO_MEMBER = 10044  # JSClusterServerNotMemberErr
_FAULTS = (TimeoutError, nats.errors.Error, APIError, OSError)


class _Server(msgspec.Struct):
    name: str = ""


class _Pong(msgspec.Struct):
    server: _Server


class _Fault(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Names(msgspec.Struct):
    streams: list[str] | None = None


class _Removed(msgspec.Struct):
    success: bool = False
    error: _Fault | None = None


async def remove_engine(engines: Sequence[Address], told: EngineSettings, name: str) -> None:
    """Remove an engine that does not run from the group of these; waits for a majority.

    Raises NodeRuns.
    """
    client = await connect(engines, told.secret, tls=told.tls, user=SYSTEM_USER)
    try:
        await _remove(client, name)
    finally:
        await client.close()


async def _remove(client: Client, name: str) -> None:
    """One that is no member any more is removed already."""
    if name in await running(client):
        raise NodeRuns(f"replace: {name} still runs; stop it first, or choose another id")
    told = ""
    while True:
        try:
            answer = await client.request(
                REMOVE, msgspec.json.encode({"peer": name}), timeout=ASK_S
            )
            found = msgspec.json.decode(answer.data, type=_Removed)
        except (*_FAULTS, msgspec.MsgspecError) as exc:
            found = _Removed(error=_Fault(0, repr(exc)))
        fault = found.error or _Fault()
        if found.success or fault.err_code == NO_MEMBER:
            log.info("removed an engine", extra={"engine": name, "member": found.success})
            return
        if fault.description != told:
            told = fault.description
            log.info("waiting for a majority of engines", extra={"reason": told})
        await asyncio.sleep(AGAIN_S)


async def running(client: Client) -> set[str]:
    """Names of the engines that answer now; `client` is the system's user."""
    names, inbox = set(), client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(PING, b"", reply=inbox)
    try:
        async with asyncio.timeout(HEAR_S):
            async for message in subscription.messages:
                names.add(msgspec.json.decode(message.data, type=_Pong).server.name)
    except TimeoutError:
        pass
    finally:
        await subscription.unsubscribe()
    return names


async def tell_when_whole(client: Client, replicas: int) -> None:
    """Log once that each stream has as many current replicas as it should have."""
    while not await is_whole(client, replicas):
        await asyncio.sleep(AGAIN_S * 4)
    log.info("every stream has its replicas again", extra={"replicas": replicas})


async def is_whole(client: Client, replicas: int) -> bool:
    """Whether every stream has a leader, and all its replicas are there and have everything.

    Each is asked for by name: a list of all is of those that have a leader.
    """
    js = client.jetstream(timeout=ASK_S)
    try:
        answer = await client.request(NAMES, timeout=ASK_S)
        names = msgspec.json.decode(answer.data, type=_Names).streams
        clusters = [(await js.stream_info(name)).cluster for name in names or ()]
    except (*_FAULTS, msgspec.MsgspecError):
        return False
    return bool(clusters) and all(cluster and _has(cluster, replicas) for cluster in clusters)


def _has(cluster: ClusterInfo, replicas: int) -> bool:
    """Who leads is none of the replicas that are told."""
    others = cluster.replicas or []
    return len(others) == replicas - 1 and all(each.current and not each.offline for each in others)
