"""WebSockets (RFC 6455) of Engine.IO clients on connections of our own, without a thread each.

python-engineio would hold three green threads a client, and a queue without bound. Here a session
stands in for that queue: what Engine.IO puts into it is framed and written at once. Extensions are
not taken up, so that no connection has a compressor and a frame is the same for everybody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import queue
import socket
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from engineio.packet import MESSAGE, NOOP, PING, UPGRADE, Packet
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from server import runtime
from server.beats import Beats
from server.connections import Connection, Poller
from server.takeover import CARRIER, Carrier

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# What refers to the server that accepted the connection: it would be kept in memory with it.
_LEFT_BEHIND = ("wsgi.input", "eventlet.input", "eventlet.posthooks", "eventlet.set_idle")
_ALSO = ("headers_raw", "werkzeug.request", "werkzeug.socket", CARRIER)
_WHOLE_TEXT, _MASKED = 0x80 | Opcode.TEXT, 0x80
_TWO_MORE = 126  # in place of the length: it follows in two bytes


def frame(payload: bytes, opcode: int = Opcode.TEXT) -> bytes:
    """A whole message as a server sends it: one frame, not masked."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x80 | opcode, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (0x80 | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, size.to_bytes(8, "big"), payload)


def whole_texts(data: bytes) -> list[str] | None:
    """The messages of a client, where each is text in one frame that has come whole; else None.

    Nearly all are. What else a frame may be costs a tenth of a millisecond to find out (wsproto).
    """
    texts, at, end = list[str](), 0, len(data)
    while at < end:
        if end - at < 6 or data[at] != _WHOLE_TEXT:
            return None
        size, begin = data[at + 1] - _MASKED, at + 2
        if size == _TWO_MORE:
            size, begin = int.from_bytes(data[begin : begin + 2]), begin + 2
            if size < _TWO_MORE:
                return None
        elif not 0 <= size < _TWO_MORE:
            return None
        key, begin = data[begin : begin + 4], begin + 4
        at = begin + size
        if at > end:
            return None
        mask = int.from_bytes((key * (size // 4 + 1))[:size])
        payload = (int.from_bytes(data[begin:at]) ^ mask).to_bytes(size)
        try:
            texts.append(payload.decode())
        except UnicodeDecodeError:
            return None
    return texts


class Session:
    """One Engine.IO client on a WebSocket: takes the place of python-engineio's queue."""

    def __init__(
        self, engine: Any, connection: Connection, upgraded: Callable[[str], None]
    ) -> None:
        """`engine` is the `engineio.Socket`; `upgraded` is told of who came from long polling."""
        self.connection = connection
        self._engine, self._upgraded = engine, upgraded
        self._limit: int = engine.server.max_http_buffer_size
        self._frames: FrameProtocol | None = None  # once something else came than whole texts
        self._parts: list[bytes | str] = []
        self._size = 0
        self._lock = runtime.real_lock()
        connection.on_data, connection.on_close = self._received, self._closed

    def begin(self) -> None:
        """Serve; a client that polls until now proves first that it can receive."""
        if self._engine.connected:
            self._engine.upgrading = True
        else:
            self._engine.connected = True
            self._take_over()

    # --- python-engineio's queue ---

    def put(self, packet: Packet | None) -> None:
        """Send a packet; None ends the connection after what waits."""
        with self._lock:
            self._put(packet)

    def qsize(self) -> int:
        """How many packets wait: some, or none."""
        return 0 if self.connection.free else 1

    def join(self) -> None:
        """Nothing to wait for: what was put is with the connection."""

    # --- sending ---

    def _put(self, packet: Packet | None) -> None:
        if packet is None:
            self.connection.finish()
            return
        encoded = packet.encode()
        if isinstance(encoded, str):
            self.connection.post(frame(encoded.encode()))
        else:
            self.connection.post(frame(encoded, Opcode.BINARY))

    def _take_over(self) -> None:
        """From now on packets come here, after those that wait in the queue."""
        with self._lock:
            before, self._engine.queue = self._engine.queue, self
            self._engine.upgraded, self._engine.upgrading = True, False
            while True:
                try:
                    packet = before.get(block=False)
                except queue.Empty:
                    return
                before.task_done()
                self._put(packet)

    # --- receiving ---

    def _received(self, data: bytes) -> None:
        texts = None if self._frames else whole_texts(data)
        if texts is None:
            self._receive(data)
            return
        for text in texts:
            self._frame(Opcode.TEXT, text, True)

    def _receive(self, data: bytes) -> None:
        if self._frames is None:
            self._frames = FrameProtocol(client=False, extensions=[])
        try:
            self._frames.receive_bytes(data)
            for each in self._frames.received_frames():
                self._frame(each.opcode, each.payload, each.message_finished)
        except ParseFailed as exc:
            self._refuse(exc.code)

    def _frame(self, opcode: Opcode, payload: Any, finished: bool) -> None:
        if opcode is Opcode.PING:
            self.connection.post(frame(bytes(payload), Opcode.PONG))
        elif opcode is Opcode.CLOSE:
            self.connection.post(frame(b"", Opcode.CLOSE))
            self.connection.finish()
        elif opcode is not Opcode.PONG:
            self._parts.append(payload if isinstance(payload, str) else bytes(payload))
            self._size += len(payload)
            if self._size > self._limit:
                self._refuse(CloseReason.MESSAGE_TOO_BIG)
            elif finished:
                parts, self._parts, self._size = self._parts, [], 0
                self._message("".join(parts) if isinstance(payload, str) else b"".join(parts))  # type: ignore[arg-type]

    def _message(self, text: str | bytes) -> None:
        engine = self._engine
        try:
            packet = Packet(encoded_packet=text)
        except ValueError:
            self._refuse(CloseReason.PROTOCOL_ERROR)
            return
        if engine.upgraded:
            self._packet(packet)
        elif packet.packet_type == PING and packet.data == "probe":
            self.connection.post(frame(b"3probe"))
            engine.queue.put(Packet(NOOP))  # ends the poll that waits
        elif packet.packet_type == UPGRADE:
            self._take_over()
            self._upgraded(engine.sid)
        else:
            self._refuse(CloseReason.PROTOCOL_ERROR)

    def _packet(self, packet: Packet) -> None:
        try:
            self._engine.receive(packet)
        except Exception:  # of an unknown kind, or for a session that is closed
            if packet.packet_type == MESSAGE:
                raise
            self.connection.finish()

    def _refuse(self, reason: CloseReason) -> None:
        self.connection.post(frame(reason.to_bytes(2, "big"), Opcode.CLOSE))
        self.connection.finish()

    def _closed(self) -> None:
        engine = self._engine
        engine.upgrading = False
        if engine.upgraded:
            engine.close(wait=False, abort=True, reason=engine.server.reason.TRANSPORT_CLOSE)
            engine.server.sockets.pop(engine.sid, None)
        self._engine = None  # it has this session as its queue: no cycle stays


class Transport:
    """What python-engineio calls to upgrade a request to a WebSocket."""

    def __init__(
        self, poller: Poller, upgraded: Callable[[str], None], handler: Any, server: Any
    ) -> None:
        """`handler` is the method of the `engineio.Socket` that would serve the connection."""
        self._poller, self._upgraded, self._engine = poller, upgraded, handler.__self__

    def __call__(self, environ: dict[str, Any], start_response: Any) -> tuple[bytes, ...]:
        """Answer the handshake; the connection is served once the request is done with.

        A list would be taken for packets.
        """
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
            version = [("Sec-WebSocket-Version", "13"), ("Content-Length", "0")]
            start_response("426 Upgrade Required", version)
            return ()
        if not _is_key(key):
            start_response("400 Bad Request", [("Content-Length", "0")])
            return ()
        carrier: Carrier = environ[CARRIER]
        carrier.begin = self._begin
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
        upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        start_response("101 Switching Protocols", [*upgrade, ("Sec-WebSocket-Accept", accept)])
        for name in (*_LEFT_BEHIND, *_ALSO):
            environ.pop(name, None)
        return ()

    def _begin(self, sock: socket.socket, head: bytes, left: Callable[[], None]) -> None:
        connection = Connection(sock, self._poller)
        session = Session(self._engine, connection, self._upgraded)
        closed = connection.on_close

        def on_close() -> None:
            closed()
            left()

        connection.on_close = on_close
        connection.post(head)
        session.begin()
        self._poller.add(connection)


def install(server: Any, poller: Poller, pings: Beats, upgraded: Callable[[str], None]) -> None:
    """Let an `engineio.Server` serve WebSockets this way, and ping without a thread a client.

    `upgraded` is told the id of each client that came from long polling.
    """
    server._async = {**server._async, "websocket": partial(Transport, poller, upgraded)}
    connect = server.handlers["connect"]

    def connected(sid: str, environ: dict[str, Any]) -> Any:
        engine = server.sockets[sid]
        engine.schedule_ping = partial(_schedule_ping, weakref.ref(engine), pings)
        return connect(sid, environ)

    server.on("connect", connected)


def _schedule_ping(known: weakref.ref[Any], pings: Beats) -> None:
    engine = known()
    if engine is not None and engine.last_ping:  # else one is on its way already
        engine.last_ping = None
        pings.add(partial(_ping, known))


def _ping(known: weakref.ref[Any]) -> bool:
    engine = known()
    if engine is not None and not engine.closing and not engine.closed:
        engine.last_ping = time.time()
        engine.send(Packet(PING))
    return False  # the answer schedules the next


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
