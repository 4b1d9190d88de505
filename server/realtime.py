"""Socket.IO: subscriptions, ingest, search and decisions over one connection (contract, part 4)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from flask_socketio import SocketIO

from context.errors import InvalidRequest
from context.items import Batch
from context.request import LiveRequest, parse_live
from server import problems
from server.agent_client import AgentClient, AgentUnavailable, CallFailed
from server.connections import REFUSED, TAKEN
from server.fanout import Fanout
from server.forms import Emitted, Form, SocketIo
from server.groups import Follower, Home
from server.ipc import Led
from server.live import Attending, LiveFeed
from server.passing import Call, Passing
from server.websocket import Session
from server.workers import Workers

log = logging.getLogger(__name__)
MAX_SUBSCRIPTIONS = 100  # of one connection
CREDIT = 8  # packets that may wait for one client, or for its acknowledgement


class FastJson:
    """python-socketio's JSON hook. `msgspec.Raw` inside passes through without being decoded."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Compact JSON text."""
        return msgspec.json.encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        """Decoded JSON; a ValueError for anything else, as the caller expects."""
        return msgspec.json.decode(text)


class Emitter:
    """The way to a follower through python-socketio: who polls, and who acknowledges."""

    def __init__(self, io: SocketIO, engine: Any, sid: str, fanout: Fanout, *, ack: bool) -> None:
        self._io, self._engine, self._sid, self._fanout = io, engine, sid, fanout
        self._ack, self._unacknowledged = ack, 0
        self._call: Callable[[], None] | None = None

    def offer(self, frame: tuple[str, dict[str, Any]]) -> int:
        """Emit an event, if this client has taken enough of those before."""
        if self._engine.queue.qsize() >= CREDIT or self._unacknowledged >= CREDIT:
            return REFUSED
        name, event = frame
        if self._ack:
            self._unacknowledged += 1
            self._io.emit(name, event, to=self._sid, callback=self._acknowledged)
        else:
            self._io.emit(name, event, to=self._sid)
        return TAKEN

    def when_free(self, call: Callable[[], None]) -> None:
        """Call when it has acknowledged, or in a moment: a queue does not tell."""
        if self._unacknowledged >= CREDIT:
            self._call = call
        else:
            self._fanout.later(call)

    def _acknowledged(self, *_: Any) -> None:
        self._unacknowledged -= 1
        call, self._call = self._call, None
        if call:
            call()


class Realtime:
    """Handlers of the default namespace."""

    def __init__(
        self,
        socketio: SocketIO,
        agent: AgentClient,
        feed: LiveFeed,
        fanout: Fanout,
        passing: Passing,
    ):
        self._io, self._agent, self._feed, self._fanout = socketio, agent, feed, fanout
        self._passing = passing
        self._subscriptions: dict[str, dict[str, tuple[Follower, LiveRequest]]] = {}
        self._attending: dict[str, Attending] = {}  # each connection: it is told of decisions
        self._asked: dict[str, int] = {}  # how many subscriptions a connection has ever asked for
        socketio.server.start_background_task = Workers().start  # only events are handled by it
        # With python-socketio itself: Flask-SocketIO would make a request context for each event.
        for name in ("subscribe", "unsubscribe", "ingest", "search", "decide"):
            socketio.server.on(name, _acknowledged(getattr(self, f"_{name}")))
        socketio.server.on("connect", self._connect)
        socketio.server.on("disconnect", self._disconnect)
        feed.on_batch(self._announce)

    def upgraded(self, engine_sid: str) -> None:
        """A client goes on by WebSocket: from now on it is sent the frames of everybody."""
        sid = self._io.server.manager.sid_from_eio_sid(engine_sid, "/")
        for name, (follower, asked) in list(self._subscriptions.get(sid, {}).items()):
            if not asked.ack:
                self._fanout.move(follower, self._home(sid, name, asked))

    def _connect(self, sid: str, *_: Any) -> None:
        self._subscriptions[sid], self._asked[sid] = {}, 0
        self._attending[sid] = self._feed.attend()
        self._io.emit("leader", _leader(self._passing.led), to=sid)

    def _disconnect(self, sid: str, *_: Any) -> None:
        self._asked.pop(sid, None)
        self._attending.pop(sid, None)
        for follower, _asked in self._subscriptions.pop(sid, {}).values():
            self._fanout.leave(follower)

    def _subscribe(self, sid: str, asked: Any = None) -> dict[str, Any]:
        wish = parse_live(_object(asked or {}))
        mine = self._subscriptions[sid]
        if len(mine) >= MAX_SUBSCRIPTIONS:
            raise InvalidRequest(f"a connection may hold {MAX_SUBSCRIPTIONS} subscriptions")
        # Not a name of its own: who asks for the same as others is sent the same bytes.
        self._asked[sid] += 1
        name = f"s{self._asked[sid]}"
        home = self._home(sid, name, wish)
        follower, place = self._fanout.prepare(wish, home.form)
        mine[name] = follower, wish
        self._fanout.begin(follower, home.link)
        return {"subscription": name, "as_of": str(place.as_of)}

    def _home(self, sid: str, name: str, asked: LiveRequest) -> Home:
        server = self._io.server
        engine = server.eio.sockets[server.manager.eio_sid_from_sid(sid, "/")]
        form: Form
        if isinstance(engine.queue, Session) and not asked.ack:
            form = SocketIo(self._feed.epoch, name)
            return Home(asked, form, engine.queue.connection)
        form = Emitted(self._feed.epoch, name)
        return Home(asked, form, Emitter(self._io, engine, sid, self._fanout, ack=asked.ack))

    def _unsubscribe(self, sid: str, asked: Any = None) -> dict[str, Any]:
        name = _object(asked).get("subscription")
        mine = self._subscriptions[sid].pop(str(name), None)
        if mine is None:
            raise InvalidRequest(f"there is no subscription {str(name)[:40]!r} here")
        self._fanout.leave(mine[0])
        return {"subscription": name}

    def _ingest(self, sid: str, asked: Any = None) -> dict[str, Any]:
        return self._at_leader(sid, "ingest", "/api/context/ingest", msgspec.json.encode(asked))

    def _search(self, sid: str, asked: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._agent.json("search", {}, msgspec.json.encode(asked or {}))
        return answer

    def _decide(self, sid: str, asked: Any = None) -> dict[str, Any]:
        body = msgspec.json.encode(asked or {})
        return self._at_leader(sid, "decide", "/api/context/ai/decide", body)

    def _at_leader(self, sid: str, name: str, path: str, body: bytes) -> dict[str, Any]:
        """The answer of whoever leads to what REST calls `path`."""
        environ = self._io.server.get_environ(sid) or {}  # none where it has gone meanwhile
        params = {"content_type": "application/json", "caller": environ.get("REMOTE_ADDR", "")}
        headers = {"Content-Type": "application/json"}
        if "HTTP_AUTHORIZATION" in environ:
            headers["Authorization"] = environ["HTTP_AUTHORIZATION"]
        call = Call("POST", path, "", headers, body, params["caller"])
        answer = self._passing.reach(call, lambda: self._agent.call(name, params, body))
        document: dict[str, Any] = msgspec.json.decode(answer.body)
        if answer.status >= 400:
            raise CallFailed(document)
        return document

    # --- pushing ---

    def tell_leader(self, led: Led) -> None:
        """Tell everybody who leads now."""
        self._io.emit("leader", _leader(led))

    def _announce(self, batch: Batch) -> None:
        """Tell everybody of the consensus' decisions and of an emergency stop, unasked."""
        for line in _lines_with(b'"model":"consensus"', batch.text):
            if line.startswith(b'{"type":"ai_decision"'):
                self._io.emit("decision", msgspec.json.decode(line)["data"])
        if b'{"type":"emergency_stop"' in batch.text:
            # Such an item only says when to look: anybody may store one.
            with contextlib.suppress(AgentUnavailable, CallFailed):
                self._io.emit("emergency_stop", self._agent.json("control"))


def _leader(led: Led) -> dict[str, Any]:
    return {"id": led.id or None, "url": led.url or None, "term": led.term}


def _lines_with(mark: bytes, text: bytes) -> Iterator[bytes]:
    at = text.find(mark)
    while at >= 0:
        end = text.index(b"\n", at)
        yield text[text.rfind(b"\n", 0, at) + 1 : end]
        at = text.find(mark, end)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"the argument must be an object, got {type(value).__name__}")
    return dict(value)


def _acknowledged(handler: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Turn a result or an error into the acknowledgement of the contract."""

    def handle(sid: str, *args: Any) -> dict[str, Any]:
        try:
            return {"ok": True, **handler(sid, *args[:1])}
        except CallFailed as exc:
            return {"ok": False, "problem": exc.document}
        except Exception as exc:  # every failure is an answer; the connection stays
            return {"ok": False, "problem": problems.describe(exc)}

    return handle
