"""HTTP/1.1 to a model's server, from the agent's event loop.

One connection a request. Nothing a server does can hold up more than its own request: it is
cancelled by closing the connection, at whatever byte it is; answers are bounded; redirects are not
followed. Names are resolved in threads of their own: a dead resolver blocks nobody else's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import h11
import msgspec

from ai_bridge.adapters.threads import DaemonThreads
from ai_bridge.errors import InvalidPrediction, ModelUnavailable
from ai_bridge.specs import origin

CONNECT_S = 5.0
IDLE_S = 20.0  # between the bytes of an answer, once it has begun
MAX_ANSWER_BYTES = 1 << 20
MAX_PIECES = 10_000  # chunks and interim answers: each costs more than its bytes
AT_ONCE = 100  # pieces looked at before the event loop does something else
MAX_HEAD_BYTES = 64 << 10
_READ_BYTES = 64 << 10
_TCP = socket.SOCK_STREAM
_RESOLVERS = 32
_SHOWN = 300  # characters of a refusal in a vote's reason


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body; raises InvalidPrediction where it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            shown = self.body[:_SHOWN].decode(errors="replace")
            raise InvalidPrediction(f"the server's answer is not JSON: {shown!r}") from wrong

    def text(self) -> str:
        """The beginning of the body, to show."""
        return " ".join(self.body[:_SHOWN].decode(errors="replace").split())


class Http:
    """Asks servers; belongs to one event loop."""

    def __init__(self) -> None:
        self._resolvers = DaemonThreads("resolver", _RESOLVERS)
        self._tls: ssl.SSLContext | None = None

    async def call(
        self,
        method: str,
        url: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Reply:
        """Send a JSON body (or none) and read the whole answer, of any status.

        Cancel it to bound its total time. Raises ModelUnavailable where nobody answers,
        InvalidPrediction where the answer is not HTTP, incomplete or too large.
        """
        scheme, host, port = origin(url)
        named = f"[{host}]" if ":" in host else host
        where = f"{named}:{port}"
        payload = b"" if body is None else msgspec.json.encode(body)
        path = url.split("://", 1)[1].partition("/")[2]
        fields = {
            "Host": where if port not in (80, 443) else named,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": "context-media-server",
            "Content-Length": str(len(payload)),
            **({"Content-Type": "application/json"} if payload else {}),
            **(headers or {}),
        }
        request = h11.Request(method=method, target=f"/{path}{query}", headers=list(fields.items()))
        async with self._connected(scheme, host, port) as (reader, writer):
            try:
                return await _exchange(reader, writer, request, payload)
            except TimeoutError as idle:
                raise ModelUnavailable(f"{where} stopped in the middle of its answer") from idle
            except OSError as gone:
                raise ModelUnavailable(f"{where} hung up: {gone.strerror or gone}") from gone
            except h11.RemoteProtocolError as wrong:
                raise InvalidPrediction(f"{where} does not answer in HTTP: {wrong}") from wrong

    @asynccontextmanager
    async def _connected(
        self, scheme: str, host: str, port: int
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await self._connect(scheme, host, port)
        except TimeoutError as late:
            raise ModelUnavailable(f"no connection to {host}:{port} in {CONNECT_S:g} s") from late
        except OSError as absent:
            detail = f"no server at {host}:{port} ({absent.strerror or absent})"
            raise ModelUnavailable(detail) from absent
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # the answer is whole, or nobody wants the rest

    async def _connect(
        self, scheme: str, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = await self._resolvers.run(partial(socket.getaddrinfo, host, port, type=_TCP))
        tls: dict[str, Any] = {}
        if scheme == "https":
            if self._tls is None:  # reads all the authorities' certificates
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            tls = {"ssl": self._tls, "server_hostname": host}
        failed: OSError | None = None
        for _, _, _, _, address in found:
            try:
                return await asyncio.open_connection(
                    str(address[0]), port, limit=_READ_BYTES, **tls
                )
            except OSError as refused:
                failed = failed or refused
        raise failed or OSError("the name has no address")


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: h11.Request,
    payload: bytes,
) -> Reply:
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    for event in (request, h11.Data(data=payload), h11.EndOfMessage()):
        writer.write(conn.send(event) or b"")
    await writer.drain()
    head: h11.Response | None = None
    body = bytearray()
    async for came in _events(conn, reader):
        if isinstance(came, h11.Response):
            head = came
        elif isinstance(came, h11.Data):
            body += came.data
            if len(body) > MAX_ANSWER_BYTES:
                raise InvalidPrediction(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        elif isinstance(came, h11.EndOfMessage) and head is not None:
            named = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            return Reply(head.status_code, named, bytes(body))
    raise h11.RemoteProtocolError("the connection was closed before an answer")


async def _events(conn: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[h11.Event]:
    """What the server sends until it hangs up, in bounded pieces."""
    begun, pieces = False, 0
    while True:
        came = conn.next_event()
        if came is h11.NEED_DATA:
            async with asyncio.timeout(IDLE_S if begun else None):
                conn.receive_data(await reader.read(_READ_BYTES))
            continue
        if not isinstance(came, h11.Event) or isinstance(came, h11.ConnectionClosed):
            return
        yield came
        begun = begun or isinstance(came, h11.Response)
        pieces += 1
        if pieces > MAX_PIECES:
            raise InvalidPrediction(f"the answer comes in more than {MAX_PIECES} pieces")
        if pieces % AT_ONCE == 0:
            await asyncio.sleep(0)
