"""How a node runs its NATS engine: ports, passwords and the configuration text, all derived.

The engine's ports follow from the web port, so that `--peers` is all that a node must know:

    web port P up to 45535      clients P + 10000, routes P + 20000
    web port P above            clients P - 10000, routes P - 20000

Passwords are HMAC-SHA256 of a purpose under the cluster secret: the secret itself is in no file
and on no wire.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nodes.errors import PeersWrong

CLIENT_USER = "context"
SYSTEM_USER = "system"  # may change which engines the cluster consists of
ROUTE_USER = "route"
MAX_PAYLOAD_BYTES = 8 << 20
OLDEST_ENGINE = (2, 11)
MOST_COPIES = 5
_LAST_LOW_PORT = 45535
_GIVES_UP = (b"Critical write error", b"JetStream out of resources", b"Error storing entry to WAL")
_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Address:
    """A web address of a node."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, an IPv6 host in brackets; raises PeersWrong."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise PeersWrong(f"peers: {text!r} is not HOST:PORT with a port from 1 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return _joined(self.host, self.port)

    @property
    def client_port(self) -> int:
        """Where this node's engine serves clients."""
        return self.port + (10_000 if self.port <= _LAST_LOW_PORT else -10_000)

    @property
    def route_port(self) -> int:
        """Where this node's engine speaks with other engines."""
        return self.port + (20_000 if self.port <= _LAST_LOW_PORT else -20_000)


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate, key and authority of this node as files in PEM."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What one engine is told."""

    name: str  # of the node
    own: Address
    peers: tuple[Address, ...]  # all web addresses, this node's included
    secret: str
    host: str  # to listen on
    store: PurePath  # folder of the streams
    tls: Tls | None = None


def own_address(
    peers: Sequence[str], port: int, is_here: Callable[[str], bool]
) -> tuple[Address, tuple[Address, ...]]:
    """This node's place among its peers, and all of them.

    `is_here` tells whether a host is this machine; it is asked only where the port leaves a
    choice. Raises PeersWrong.
    """
    known = tuple(Address.parse(peer) for peer in peers)
    clash = _clash(known)
    if clash:
        raise PeersWrong(clash)
    found = [peer for peer in known if peer.port == port]
    if len(found) > 1:
        found = [peer for peer in found if is_here(peer.host)]
    if len(found) != 1:
        listed = ", ".join(map(str, known))
        raise PeersWrong(
            f"peers={listed}: must list this node's own address once, with its port {port}"
        )
    return found[0], known


def replicas(peers: int) -> int:
    """How many engines keep each message: a majority of them stores it before the answer.

    Five at most, as the engine can; four keep three, as a fourth copy would survive no more.
    """
    return peers if peers <= MOST_COPIES and peers % 2 else min(MOST_COPIES, max(2, peers - 1))


def password(secret: str, purpose: str) -> str:
    """What proves knowledge of the cluster secret for one purpose, without telling it."""
    return hmac.new(secret.encode(), f"context {purpose}".encode(), hashlib.sha256).hexdigest()


def login(secret: str, user: str) -> tuple[str, str]:
    """A user of the engine, and its password."""
    return user, password(secret, "client" if user == CLIENT_USER else user)


def client_url(address: Address) -> str:
    """Where clients find the engine of a node; the password goes beside it."""
    return f"nats://{_joined(address.host, address.client_port)}"


def config_text(settings: EngineSettings) -> str:
    """The engine's configuration file; it holds passwords."""
    own, route = settings.own, password(settings.secret, "route")
    tls = _tls(settings.tls)
    others = [
        f"nats://{ROUTE_USER}:{route}@{_joined(peer.host, peer.route_port)}"
        for peer in settings.peers
        if peer != own
    ]
    lines = [
        f"server_name: {json.dumps(settings.name)}",
        f"listen: {json.dumps(_joined(settings.host, own.client_port))}",
        f"max_payload: {MAX_PAYLOAD_BYTES}",
        "max_pending: 67108864",
        "write_deadline: 10s",
        "lame_duck_duration: 30s",
        "lame_duck_grace_period: 1s",
        f"authorization {{ users: [{_user(settings.secret, CLIENT_USER)}] }}",
        f"accounts {{ $SYS {{ users: [{_user(settings.secret, SYSTEM_USER)}] }} }}",
        "jetstream {",
        f"  store_dir: {json.dumps(str(settings.store))}",
        "  sync_interval: always",
        # Else the engine refuses a stream whose bound is more than 3/4 of the disk.
        f"  max_file_store: {1 << 50}",
        "}",
        *tls,
    ]
    if others:
        lines += [
            "cluster {",
            "  name: context",
            f"  listen: {json.dumps(_joined(settings.host, own.route_port))}",
            "  no_advertise: true",
            "  connect_backoff: false",
            f"  authorization {{ user: {ROUTE_USER}, password: {json.dumps(route)}, timeout: 2 }}",
            f"  routes: {json.dumps(others)}",
            *(f"  {line}" for line in tls),
            "}",
        ]
    return "\n".join(lines) + "\n"


def version_of(told: str) -> tuple[int, int, int] | None:
    """The version in what `nats-server --version` prints; None where there is none."""
    found = _VERSION.search(told)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def gives_up(line: bytes) -> bool:
    """Whether the engine says, in a line of its log, that it stores nothing more until a restart.

    It does so when a write fails, such as on a full disk, and stays so when there is room again.
    """
    return any(sign in line for sign in _GIVES_UP)


def is_new_enough(version: tuple[int, int, int] | None) -> bool:
    """Whether an engine of this version can be used."""
    return version is not None and version[:2] >= OLDEST_ENGINE


def _clash(peers: Sequence[Address]) -> str:
    """What is wrong with these addresses together; empty where nothing is."""
    taken: dict[tuple[str, int], Address] = {}
    for peer in peers:
        for port in (peer.port, peer.client_port, peer.route_port):
            other = taken.setdefault((peer.host, port), peer)
            if other is not peer:
                return f"peers: {other} and {peer} both need port {port} of {peer.host}"
    return ""


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _user(secret: str, user: str) -> str:
    name, word = login(secret, user)
    return f"{{ user: {name}, password: {json.dumps(word)} }}"


def _tls(tls: Tls | None) -> list[str]:
    if tls is None:
        return []
    files = {"cert_file": tls.cert, "key_file": tls.key, "ca_file": tls.ca}
    told = ", ".join(f"{name}: {json.dumps(path)}" for name, path in files.items())
    return [f"tls {{ {told}, verify: true, timeout: 2 }}"]
