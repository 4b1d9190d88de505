"""The connection of one process to the engine; whatever restarts, it connects again."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence

from nats.aio.client import Client

from nodes.engine import CLIENT_USER, Address, Tls, client_url, login

log = logging.getLogger(__name__)
CONNECT_S = 2
RECONNECT_S = 0.1
PING_S = 2  # a frozen engine is left after two pings without an answer


async def connect(
    engines: Sequence[Address],
    secret: str,
    *,
    tls: Tls | None,
    urls: Sequence[str] = (),
    user: str = CLIENT_USER,
) -> Client:
    """Connect to the first engine that answers, in the order given; wait for one for ever.

    `urls` are those of an existing NATS cluster, and take the place of the nodes' own engines.
    """
    client, down = Client(), False
    user, word = login(secret, user)

    async def on_down() -> None:
        nonlocal down
        if not down and not client.is_closed:
            log.warning("the engine is not reachable")
        down = True

    async def on_up() -> None:
        nonlocal down
        log.info("the engine is reachable again")
        down = False

    async def on_error(exc: Exception) -> None:
        log.debug("engine: %r", exc)  # each try to connect again; `on_down` told the operator

    await client.connect(
        [*urls] or [client_url(each) for each in engines],
        user=None if urls else user,
        password=None if urls else word,
        tls=_context(tls) if tls else None,
        dont_randomize=True,
        connect_timeout=CONNECT_S,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type] # it sleeps for it
        ping_interval=PING_S,
        max_outstanding_pings=2,
        pending_size=64 << 20,
        flush_timeout=CONNECT_S,
        disconnected_cb=on_down,
        reconnected_cb=on_up,
        error_cb=on_error,
    )
    return client


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=tls.ca)
    context.load_cert_chain(tls.cert, tls.key)
    return context
