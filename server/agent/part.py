"""A node's part: what it writes to and who leads, alone or among peers."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from context.ports import Log
from nodes.leadership import Leadership
from server.agent.node import Node
from server.config import Settings
from shared_storage.ports import BlobStore, StateStore


class Part(Protocol):
    """Log, state and leadership of one node."""

    log: Log
    state: StateStore
    blobs: BlobStore
    leadership: Leadership
    follows: bool  # items come back through `Node.take`, whoever wrote them

    async def serve(self, node: Node) -> None:
        """Begin to follow, to be heard and to be chosen: the index holds what the log holds."""

    async def close(self) -> None:
        """Leave, and close the log; nothing is written any more."""


async def open_part(settings: Settings, term: int) -> Part:
    """The part that the settings ask for; waits for a majority where a cluster is to be joined.

    Raises what opening the files raises, ForeignHistory, PeersWrong, SecretMissing.
    """
    # A single node does not even import the client of the engine.
    module = import_module("server.agent.member" if settings.peers else "server.agent.alone")
    part: Part = await module.open_part(settings, term)
    return part
