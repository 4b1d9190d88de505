"""The engine's role in a node: `python -m server.engine` runs nats-server as the settings say."""

from __future__ import annotations

import asyncio

from nodes.adapters.nats_server import is_this_machine, run_engine
from nodes.adapters.parent import announce_refused, die_with_parent
from nodes.adapters.replacing import remove_engine
from nodes.engine import EngineSettings, Tls, own_address
from nodes.errors import NodeError, SecretMissing
from server.child import read_settings, start_logs
from server.config import Settings


def engine_settings(settings: Settings) -> EngineSettings:
    """What the engine of this node is told. Raises PeersWrong, SecretMissing."""
    own, peers = own_address(settings.peers, settings.port, is_this_machine)
    if not settings.cluster_secret:
        raise SecretMissing("peers: set CONTEXT_CLUSTER_SECRET, the same on every node")
    files = (settings.cluster_tls_cert, settings.cluster_tls_key, settings.cluster_tls_ca)
    if any(files) and not all(files):
        raise NodeError("cluster_tls_cert, cluster_tls_key and cluster_tls_ca go together")
    return EngineSettings(
        name=settings.node_id,
        own=own,
        peers=peers,
        secret=settings.cluster_secret,
        host=settings.host,
        store=(settings.data_dir / "engine").resolve(),
        tls=Tls(*files) if all(files) else None,
    )


def take_place(settings: Settings, told: EngineSettings) -> None:
    """Remove the engine that this one replaces, before its first start. Raises NodeRuns.

    Before: an engine that has once joined counts until it is removed, also if its node is refused.
    """
    gone, known = settings.replace, (settings.data_dir / "engine" / "jetstream").exists()
    if gone not in ("", settings.node_id) and not known:
        others = [peer for peer in told.peers if peer != told.own]
        asyncio.run(remove_engine(others, told, gone))


def main() -> int:
    """Run the engine until SIGTERM."""
    settings = read_settings()
    start_logs(settings, "engine")
    try:
        told = engine_settings(settings)
        take_place(settings, told)
        return run_engine(told, (settings.data_dir / "engine").resolve())
    except (NodeError, OSError) as exc:
        announce_refused(f"engine: {exc}")
        return 1


if __name__ == "__main__":
    die_with_parent()
    raise SystemExit(main())
