"""Who may call at all: known host names, pages of known sites, and whoever has the token.

Stands before Flask and Socket.IO alike, so that no route and no transport is forgotten.

* A browser's `Host` that is not this node's is refused: a page of another site whose name was made
  to point here (DNS rebinding) would count as a page of this node for the browser. Addresses pass,
  as no name can pretend to be one; so do programs, which no page can speak through.
* A page's `Origin` must be this node, or be listed in `cors_origins`. Programs send none.
* Where an `api_token` is set, calls bring it as a bearer token (RFC 6750). What cannot send headers
  (`EventSource`, a browser's WebSocket) brings a ticket instead: good once, for seconds.
* A call that another node of the cluster passes on was let in there, and proves that it was.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from nodes.proof import HEADER, SIGNED, BadProof, Passed, Proof, Proofs
from server import problems
from server.config import Settings

Environ = dict[str, Any]
Headers = list[tuple[str, str]]

METHODS = "GET, POST, PATCH, DELETE"
PREFLIGHT_S = 600
EXPOSED = (
    "Context-Applied, Context-As-Of, Context-Node, Context-Stale, Idempotent-Replayed, "
    "Retry-After, WWW-Authenticate, X-Request-Id"
)
OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})  # without a token
OPEN_BELOW = ("/docs/", "/dashboard/static/")
SOCKET_IO = "/socket.io"
PROOF = "context.proof"  # in the WSGI environment: what a call that was passed on proves
_FORWARDED = f"HTTP_{HEADER.upper().replace('-', '_')}"
BY_TICKET = ("/api/context/stream", "/api/context/export", SOCKET_IO)


class Refused(Exception):
    """Base of what the gate answers."""

    code: ClassVar[str] = "forbidden"
    status: ClassVar[int] = 403


class ForeignOrigin(Refused):
    """A page of another site calls."""


class UnknownHost(Refused):
    """The request names a host that is not this node."""

    code = "misdirected_request"
    status = 421


class Unauthorized(Refused):
    """No token, or not the right one."""

    code = "unauthorized"
    status = 401


def host_names(settings: Settings, machine: str) -> frozenset[str]:
    """Names by which this node may be called; one that begins with a dot holds for all below it."""
    peers = (peer.rpartition(":")[0] for peer in settings.peers)
    names = ("localhost", machine, f"{machine}.local", settings.host, *peers)
    return frozenset(name.lower() for name in (*names, *settings.allowed_hosts))


def is_known_host(host: str, names: Iterable[str]) -> bool:
    """Whether a `Host` header is this node's: an address, or one of the names; any port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.removeprefix("[").removesuffix("]").lower().removesuffix(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return any(
            name == known or (known.startswith(".") and name.endswith(known)) for known in names
        )
    return True


class Gate:
    """A WSGI application before another: lets requests pass, or answers with a problem."""

    def __init__(
        self,
        app: Any,
        settings: Settings,
        redeem: Callable[[str], bool],
        proofs: Proofs | None = None,
    ) -> None:
        """`redeem` takes a ticket and tells whether it was good; it may raise a domain error."""
        self._app, self._proofs = app, proofs
        self._names = host_names(settings, socket.gethostname())
        self._origins = frozenset(settings.cors_origins)
        self._token = settings.api_token.encode()
        self._redeem = redeem

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Answer or pass on."""
        try:
            cors = self._admit(environ)
        except Exception as exc:
            return _refuse(exc, start_response)
        if _is_preflight(environ):
            start_response("204 No Content", [*cors, *_preflight(environ)])
            return [b""]
        if not self._origins:
            return self._app(environ, start_response)

        def with_cors(status: str, headers: Headers, *more: Any) -> Any:
            return start_response(status, [*headers, *cors, ("Vary", "Origin")], *more)

        return self._app(environ, with_cors)

    def _admit(self, environ: Environ) -> Headers:
        """Headers for a page of a listed site; raises Refused, BadProof, ClocksDiffer."""
        if _FORWARDED in environ:
            environ[PROOF] = self._prove(environ)
            return []
        host = environ.get("HTTP_HOST")
        if host is not None and _is_browser(environ) and not is_known_host(host, self._names):
            raise UnknownHost(f"this node is not {host[:100]}; see allowed_hosts")
        cors = self._cors(environ, host)
        if not _is_preflight(environ):  # which never carries the token
            self._authorise(environ)
        return cors

    def _prove(self, environ: Environ) -> Proof:
        """What a call that was passed on proves; its body is compared where it is read."""
        if self._proofs is None or not environ["PATH_INFO"].startswith("/api/"):
            raise BadProof("nobody passes this call on to this node")
        names = {name: name.upper().replace("-", "_") for name in SIGNED}
        names = {k: v if k == "Content-Type" else f"HTTP_{v}" for k, v in names.items()}
        what = Passed(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            {name: environ[key] for name, key in names.items() if key in environ},
        )
        return self._proofs.check(environ[_FORWARDED], what, now=time.time())

    def _cors(self, environ: Environ, host: str | None) -> Headers:
        origin = environ.get("HTTP_ORIGIN")
        # A proxy that ends TLS makes the schemes differ, so the host alone is compared.
        if origin is None or origin.partition("://")[2] == host:
            return []
        if origin in self._origins:
            return [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Expose-Headers", EXPOSED),
            ]
        # A mere reading is harmless: without the header above, browsers keep the answer to
        # themselves. WebSockets know no such rule.
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if reads and not environ["PATH_INFO"].startswith(SOCKET_IO):
            return []
        raise ForeignOrigin(f"a page of {origin[:100]} may not call this node; see cors_origins")

    def _authorise(self, environ: Environ) -> None:
        path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        ticket = None
        if path.startswith(BY_TICKET) and "ticket=" in query:
            pairs = parse_qsl(query, keep_blank_values=True)
            ticket = dict(pairs).get("ticket")
            environ["QUERY_STRING"] = urlencode([pair for pair in pairs if pair[0] != "ticket"])
        if not self._token or path in OPEN or path.startswith(OPEN_BELOW):
            return
        if path.startswith(SOCKET_IO) and dict(parse_qsl(query)).get("sid"):
            return  # a secret of the session that was let in; Engine.IO refuses unknown ones
        kind, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if kind.lower() == "bearer" and compare_digest(given.strip().encode(), self._token):
            return
        if ticket and self._redeem(ticket):
            return
        raise Unauthorized(
            "this ticket is unknown, used or too old" if ticket else "this call needs the API token"
        )


_OF_BROWSERS = frozenset(
    {"HTTP_ACCEPT_LANGUAGE", "HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_MODE"}
)


def _is_browser(environ: Environ) -> bool:
    """Whether a page may stand behind it.

    A page can have another `User-Agent` sent, but has no way to take `Accept-Language` out of its
    requests, which every browser sends; and WebSockets and writes carry an `Origin`.
    """
    agent = environ.get("HTTP_USER_AGENT", "")
    return agent.startswith("Mozilla/") or not _OF_BROWSERS.isdisjoint(environ)


def _is_preflight(environ: Environ) -> bool:
    asked = "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    return environ["REQUEST_METHOD"] == "OPTIONS" and asked


def _preflight(environ: Environ) -> Headers:
    wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS")
    headers = [
        ("Access-Control-Allow-Methods", METHODS),
        ("Access-Control-Max-Age", str(PREFLIGHT_S)),
        ("Vary", "Origin, Access-Control-Request-Headers"),
    ]
    return [*headers, ("Access-Control-Allow-Headers", wanted)] if wanted else headers


def _refuse(exc: Exception, start_response: Any) -> list[bytes]:
    document = problems.describe(exc)
    answer = problems.answer(document)
    headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
    if isinstance(exc, Unauthorized):
        headers.append(("WWW-Authenticate", 'Bearer realm="context"'))
    start_response(f"{answer.status} {document['title']}", headers)
    return [answer.body]
