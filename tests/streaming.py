"""Readers of live streams for tests, written from the specifications and not from our own code."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

import engineio
import requests
import socketio

from tests.node_process import Api, NodeProcess

Json = dict[str, Any]
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Event:
    """One event of an SSE stream; a comment has the kind ":"."""

    kind: str
    id: str = ""
    data: Any = None


class SseReader:
    """Reads `GET /api/context/stream` in a thread; `status` and `problem` tell of a refusal."""

    def __init__(
        self,
        node: NodeProcess,
        headers: Mapping[str, str] | None = None,
        *,
        paused: bool = False,
        **params: Any,
    ) -> None:
        self.events: list[Event] = []
        self.ended = False
        self.reading = threading.Event()  # set it to go on after `paused`
        if not paused:
            self.reading.set()
        self._changed = threading.Condition()
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
        target = "/api/context/stream?" + urlencode(params, doseq=True)
        connection.request("GET", target, headers=dict(headers or {}))
        self._sock: socket.socket = connection.sock
        self._response = connection.getresponse()
        self._connection = connection
        self.status, self.headers = self._response.status, self._response.headers
        self.problem: Json = {}
        if self.status != 200:
            self.problem = json.loads(self._response.read())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, enough: Callable[[list[Event]], bool], seconds: float = PATIENCE_S) -> None:
        """Wait until the events so far are enough; fails with how many there were."""
        with self._changed:
            there = self._changed.wait_for(lambda: enough(self.events) or self.ended, seconds)
            assert there, f"{len(self.events)} events, newest {self.events[-1:]}"
            assert enough(self.events), f"ended after {len(self.events)} events"

    def items(self) -> list[Json]:
        """The items seen so far."""
        with self._changed:
            return [event.data for event in self.events if event.kind == "context"]

    def wait_items(self, count: int, seconds: float = PATIENCE_S) -> list[Json]:
        """Wait for so many items."""
        self.wait(lambda events: sum(e.kind == "context" for e in events) >= count, seconds)
        return self.items()

    def close(self) -> None:
        """Break the connection and forget it."""
        self.reading.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._response.close()
        self._connection.close()
        self._sock.close()

    def _read(self) -> None:
        buffer = b""
        self.reading.wait()
        try:
            while self.status == 200 and (piece := self._response.read1(65536)):
                *frames, buffer = (buffer + piece).split(b"\n\n")
                parsed = [_event(frame.decode()) for frame in frames]
                with self._changed:
                    self.events += [event for event in parsed if event]
                    self._changed.notify_all()
        except (OSError, http.client.HTTPException, ValueError):
            pass  # broken, by us or by the node
        with self._changed:
            self.ended = True
            self._changed.notify_all()


def _event(frame: str) -> Event | None:
    if frame.startswith(":"):
        return Event(":")
    fields = dict(line.split(": ", 1) for line in frame.split("\n"))
    if "event" not in fields:
        return None
    return Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))


class _OrderedEngine(engineio.Client):
    """Handles messages one after the other; the stock client gives each a thread of its own."""

    def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **more: Any) -> Any:
        return super()._trigger_event(event, *args, run_async=False, **more)


class _OrderedClient(socketio.Client):
    def _engineio_client_class(self) -> type[engineio.Client]:
        return _OrderedEngine


class IoClient:
    """A Socket.IO client that records every event in order."""

    def __init__(self, node: NodeProcess, transport: str = "websocket") -> None:
        self.events: list[tuple[str, Any]] = []
        self._changed = threading.Condition()
        self._http = requests.Session()
        self._client = _OrderedClient(reconnection=False, http_session=self._http)
        self._client.on("*", self._note)
        self._client.connect(node.url, transports=[transport], wait_timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def polls_anew(self) -> None:
        """Take a new connection for every request from now on."""
        self._http.headers["Connection"] = "close"

    def call(self, event: str, data: Any = None) -> Json:
        """Send an event and return its acknowledgement."""
        answer: Json = self._client.call(event, data, timeout=PATIENCE_S)
        return answer

    def wait(self, enough: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """Wait until `enough()` is true about `events`, and return what it gave."""
        with self._changed:
            found = self._changed.wait_for(enough, seconds)
            assert found, f"{len(self.events)} events, newest {str(self.events[-1:])[:500]}"
            return found

    def named(self, name: str) -> list[Any]:
        """The data of every event of a name."""
        return [data for event, data in self.events if event == name]

    def items(self, subscription: str) -> list[Json]:
        """The items of a subscription, in the order they came."""
        mine = (e for e in self.named("context") if e["subscription"] == subscription)
        return [item for event in mine for item in event["items"]]

    def wait_items(self, subscription: str, count: int) -> list[Json]:
        """Wait for so many items of a subscription."""
        self.wait(lambda: len(self.items(subscription)) >= count)
        return self.items(subscription)

    def close(self) -> None:
        """Disconnect at once, as a browser does whose page is closed."""
        engine = self._client.eio
        if engine.current_transport == "websocket" and engine.ws:
            engine.ws.shutdown()
        engine.disconnect(abort=True)
        self._http.close()

    def _note(self, event: str, data: Any = None) -> None:
        with self._changed:
            self.events.append((event, data))
            self._changed.notify_all()


class Producers:
    """Threads that store items until told to stop; `acknowledged` is what the node answered."""

    def __init__(self, node: NodeProcess, threads: int = 3, batch: int = 20, **item: Any) -> None:
        self._node, self._batch = node, batch
        self._item = {"type": "flow", "data": {}, **item}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged: list[tuple[int, int]] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def offsets(self) -> list[int]:
        """Every acknowledged offset, ascending."""
        with self._lock:
            spans = sorted(self.acknowledged)
        return [offset for first, last in spans for offset in range(first, last + 1)]

    def _run(self) -> None:
        with Api(self._node.url) as client:
            size = 1
            while not self._stop.is_set():
                size = size % self._batch + 1
                told = client.ingest([self._item] * size)
                with self._lock:
                    self.acknowledged.append((told["first_offset"], told["last_offset"]))
                time.sleep(0.002)  # leaves this machine's cores to the readers too
