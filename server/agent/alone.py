"""What a node without peers writes to: its own log and state; it leads for as long as it runs."""

from __future__ import annotations

from context.adapters.log_sqlite import SqliteLog
from nodes.leadership import SingleLeadership
from server.agent.cluster import heartbeat, own_peer
from server.agent.node import Node
from server.config import Settings
from shared_storage.adapters.blobs_fs import FileBlobs
from shared_storage.adapters.sqlite import SqliteStateStore

BLOBS = "blobs"  # in the data folder


class Alone:
    """One node's log, state and leadership; see `server.agent.part`."""

    def __init__(self, settings: Settings, term: int) -> None:
        self.log = SqliteLog(settings.data_dir / "log.db")
        self.state = SqliteStateStore(settings.data_dir / "state.db")
        self.blobs = FileBlobs(settings.data_dir / BLOBS, most=settings.max_body_bytes)
        self.leadership = SingleLeadership(own_peer(settings), term)
        self.follows = False

    async def serve(self, node: Node) -> None:
        """Nobody else has to know of it."""
        await self.leadership.start(lambda: heartbeat(node))

    async def close(self) -> None:
        """Close the log."""
        self.log.close()


async def open_part(settings: Settings, term: int) -> Alone:
    """The part of a single node; raises what opening its files raises."""
    return Alone(settings, term)
