"""Several web processes on one port: the kernel spreads connections over them (SO_REUSEPORT).

Streams and WebSockets live on one connection and need nothing more. A Socket.IO client that polls
sends each request on whatever connection there is: its session's id begins with the number of the
process that has it, and a poll that comes to another one is passed on over that one's Unix
socket. An upgrade to a WebSocket that comes to the wrong process is refused, so that this client
stays with polling.
"""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

log = logging.getLogger(__name__)
OWN_METRICS = "/own-metrics"  # on the Unix socket only
_SOCKET_IO = "/socket.io"
_POLL_S = 60.0  # longer than a poll waits
_ASK_S = 2.0
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
Environ = dict[str, Any]


class Siblings:
    """What one of `count` web processes knows of the others."""

    def __init__(self, own: int, count: int, path: Callable[[int], Path]) -> None:
        """`path` tells the Unix socket of each."""
        self.own, self.count, self._path = own, count, path

    def named(self, generate: Callable[[], str]) -> Callable[[], str]:
        """Session ids that tell whose they are."""
        return lambda: f"{self.own}.{generate()}"

    def relaying(self, app: Any) -> Any:
        """A WSGI application that passes on what belongs to another process."""
        if self.count == 1:
            return app

        def wrapped(environ: Environ, start_response: Any) -> Iterable[bytes]:
            owner = self._owner(environ)
            if owner == self.own:
                return app(environ, start_response)  # type: ignore[no-any-return]
            if "HTTP_UPGRADE" in environ:
                start_response("400 Bad Request", [("Content-Length", "0")])
                return [b""]
            return self._relay(owner, environ, start_response)

        return wrapped

    def private(self, app: Any, registry: CollectorRegistry) -> Any:
        """What is served on this process's Unix socket."""

        def wrapped(environ: Environ, start_response: Any) -> Any:
            if environ["PATH_INFO"] != OWN_METRICS:
                return app(environ, start_response)
            body = generate_latest(registry)
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        return wrapped

    def listen(self) -> socket.socket:
        """This process's Unix socket."""
        path = self._path(self.own)
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(1024)
        return sock

    def collect(self, registry: CollectorRegistry) -> Iterator[Metric]:
        """The metrics of all processes, equal ones summed; one that does not answer is left out."""
        found: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for family in (*registry.collect(), *self._others()):
            if family.name not in found:
                found[family.name] = Metric(family.name, family.documentation, family.type)
            values = sums.setdefault(family.name, {})
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    key = (sample.name, tuple(sample.labels.items()))
                    values[key] = values.get(key, 0.0) + sample.value
        for name, metric in found.items():
            for (sample_name, labels), value in sums[name].items():
                metric.add_sample(sample_name, dict(labels), value)
            yield metric

    def _others(self) -> Iterator[Metric]:
        for number in range(self.count):
            if number != self.own:
                with suppress(OSError, http.client.HTTPException):
                    connection = _Connection(self._path(number), _ASK_S)
                    connection.request("GET", OWN_METRICS)
                    text = connection.getresponse().read().decode()
                    connection.close()
                    yield from text_string_to_metric_families(text)

    def _owner(self, environ: Environ) -> int:
        if not environ["PATH_INFO"].startswith(_SOCKET_IO):
            return self.own
        sid = parse_qs(environ.get("QUERY_STRING", "")).get("sid", [""])[0]
        number, dot, _ = sid.partition(".")
        if dot and number.isdecimal() and int(number) < self.count:
            return int(number)
        return self.own

    def _relay(self, owner: int, environ: Environ, start_response: Any) -> list[bytes]:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else None
        target = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        connection = _Connection(self._path(owner), _POLL_S)
        try:
            connection.request(environ["REQUEST_METHOD"], target, body, dict(_headers(environ)))
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as exc:  # it is restarted: the session is gone
            log.info("a poll could not be passed on", extra={"to": owner, "reason": str(exc)})
            start_response("400 Bad Request", [("Content-Length", "0")])
            return [b""]
        finally:
            connection.close()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
        headers.append(("Content-Length", str(len(content))))
        start_response(f"{answer.status} {answer.reason}", headers)
        return [content]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._at = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._at))


def _headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            header = name[5:].replace("_", "-").title()
            if header.lower() not in _HOP:
                yield header, value
    if environ.get("CONTENT_TYPE"):
        yield "Content-Type", environ["CONTENT_TYPE"]
