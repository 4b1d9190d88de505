"""Subscribers that resume by cursor, and note everything that they are given: no filter hides a
repeat, as a good client's would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from socket import SHUT_RDWR
from typing import Any

import msgspec
import requests
import websocket
from urllib3.exceptions import HTTPError

from context.events import EventDecoder
from tests.faults.checker import Missed, Seen
from tests.node_process import Api, wait_for

PAUSE_S = 0.05
SILENCE_S = 30.0  # twice the node's heartbeat
_FIELDS = ("type", "source", "timestamp", "data", "metadata")


def content(item: Mapping[str, Any]) -> bytes:
    """What the producer sent of an item, in one spelling."""
    return msgspec.json.encode({name: item[name] for name in _FIELDS if name in item})


def read_log(client: Api) -> list[Seen]:
    """The whole log by ascending offset, read back in pages."""
    found: list[Seen] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        params = {"limit": 10_000} | ({"before": page["next"]} if page["next"] else {})
        page = msgspec.json.decode(client.get("/api/context/latest", params=params).content)
        found += [Seen(item["offset"], content(item)) for item in page["items"]]
    return found[::-1]


class Subscriber:
    """Follows a node from offset 0 in a thread; `given` is all that came, in order."""

    def __init__(self, url: str, epoch: str) -> None:
        self.given: list[Seen | Missed] = []
        self.connections = 0
        self._url, self._cursor = url, f"{epoch}:-1"
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, newest: str, seconds: float = 20.0) -> None:
        """Wait until this cursor has come; what does not come in time is the checker's to tell."""
        offset = int(newest.rpartition(":")[2])
        with suppress(AssertionError):
            wait_for(lambda: self._offset() >= offset, f"offset {offset}", seconds)

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stopping = True
        self._hang_up()
        self._thread.join(SILENCE_S)
        assert not self._thread.is_alive()

    def cut(self) -> None:
        """Break the connection there is, as a network does."""
        with suppress(OSError, AttributeError, ValueError):  # there was none just now
            self._hang_up()

    def _offset(self) -> int:
        return int(self._cursor.rpartition(":")[2])

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._follow()
            except (
                requests.RequestException,
                HTTPError,
                OSError,
                websocket.WebSocketException,
            ):
                time.sleep(PAUSE_S)

    def _items(self, items: list[dict[str, Any]], cursor: str) -> None:
        self.given += [Seen(item["offset"], content(item)) for item in items]
        self._cursor = cursor

    def _gap(self, gap: Mapping[str, str]) -> None:
        first, last = (int(gap[name].rpartition(":")[2]) for name in ("missed_from", "missed_to"))
        self.given.append(Missed(first, last))
        self._cursor = gap["missed_to"]

    def _follow(self) -> None:
        raise NotImplementedError

    def _hang_up(self) -> None:
        raise NotImplementedError


class SseSubscriber(Subscriber):
    """Server-Sent Events, resumed by `Last-Event-ID`."""

    _answer: requests.Response | None = None

    def _follow(self) -> None:
        with Api(self._url) as api:
            headers = {"Last-Event-ID": self._cursor, "Accept-Encoding": "identity"}
            answer = api.get(
                "/api/context/stream", headers=headers, stream=True, timeout=(5, SILENCE_S)
            )
            with answer:
                answer.raise_for_status()
                self._answer = answer
                self.connections += 1
                decoder = EventDecoder()
                while not self._stopping:
                    chunk = answer.raw.read1(65536)
                    if not chunk:
                        raise requests.ConnectionError("the stream ended")
                    for event in decoder.feed(chunk):
                        if event.kind == "gap":
                            self._gap(event.data)
                        else:
                            assert event.cursor
                            self._items([event.data], event.cursor)

    def _hang_up(self) -> None:
        if self._answer and self._answer.raw.connection:
            self._answer.raw.shutdown()


class SocketIoSubscriber(Subscriber):
    """Socket.IO as it is on the wire (Engine.IO 4), a new connection with `after` each time.

    Not python-socketio's client: it gives every message to a thread of its own, so that a small
    one overtakes a large one, and the order on the wire could not be told.
    """

    _socket: websocket.WebSocket | None = None

    def _follow(self) -> None:
        address = self._url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        with closing(_connected(address)) as socket:
            self._socket = socket
            socket.send("40")
            while not self._stopping:
                message = str(socket.recv() or "")
                if not message:
                    raise ConnectionResetError("the connection ended")
                if message == "2":
                    socket.send("3")
                elif message.startswith("40"):
                    socket.send('420["subscribe",' + json.dumps({"after": self._cursor}) + "]")
                elif message.startswith("430"):
                    if not json.loads(message[3:])[0]["ok"]:
                        raise ConnectionRefusedError(message)
                    self.connections += 1
                elif message.startswith("42"):
                    self._event(*json.loads(message[2:]))

    def _event(self, name: str, event: dict[str, Any]) -> None:
        if name == "context":
            self._items(event["items"], event["cursor"])
        elif name == "gap":
            self._gap(event)

    def _hang_up(self) -> None:
        if self._socket and self._socket.sock:
            self._socket.sock.shutdown(SHUT_RDWR)


def _connected(address: str) -> websocket.WebSocket:
    # No proxy of the machine stands between.
    return websocket.create_connection(address, timeout=SILENCE_S, http_no_proxy=["*"])


class PollSubscriber(Subscriber):
    """Long polls, one after the other over one connection."""

    _api: Api | None = None

    def _follow(self) -> None:
        with Api(self._url) as self._api:
            known = False
            while not self._stopping:
                params: dict[str, Any] = {"after": self._cursor, "wait_s": 1, "limit": 1000}
                answer = self._api.get("/api/context/poll", params=params, timeout=(5, SILENCE_S))
                answer.raise_for_status()
                self.connections += not known
                known, found = True, msgspec.json.decode(answer.content)
                if found["gap"]:
                    self._gap(found["gap"])
                else:
                    self._items(found["items"], found["next"])

    def _hang_up(self) -> None:
        if self._api:
            self._api.close()
