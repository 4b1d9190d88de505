"""The gate: hosts, origins and tokens, at its own door."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.errors import RateLimited
from nodes.proof import Passed, Proofs
from server.agent.tickets import MAX_TICKETS, TICKET_S, Tickets
from server.config import SettingsError, load
from server.gate import Gate, host_names, is_known_host

TOKEN = "correct-horse-battery"


def knock(
    gate: Gate, method: str = "GET", path: str = "/api/x", query: str = "", **headers: str
) -> Any:
    """Status, headers, and the query that the application saw (None: it was not asked)."""
    given_: dict[str, Any] = {"status": "", "headers": {}}

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        given_.update(status=int(status.split(maxsplit=1)[0]), headers=dict(headers))

    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    environ["HTTP_HOST"] = "localhost:5000"
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    body = gate(environ, start)
    return (
        given_["status"],
        given_["headers"],
        body[0].decode() if body[0][:5] == b"seen:" else None,
    )


def gate(proofs: Proofs | None = None, **settings: Any) -> Gate:
    tickets = {"good"}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"seen:" + environ["QUERY_STRING"].encode()]

    def redeem(ticket: str) -> bool:
        found = ticket in tickets
        tickets.discard(ticket)
        return found

    return Gate(app, load(settings, {}), redeem, proofs)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:5000", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("192.168.3.4:80", True),
        ("[::1]:5000", True),
        ("[fe80::1]", True),
        ("box:5000", True),
        ("box.local", True),
        ("peer.lan:5000", True),
        ("ctx.example.org", True),
        ("a.b.wide.org:443", True),
        ("wide.org", False),
        ("evilwide.org", False),
        ("evil.org:5000", False),
        ("127.0.0.1.evil.org", False),
        ("localhost.evil.org", False),
        ("", False),
    ],
)
def test_hosts(host: str, known: bool) -> None:
    names = {"peers": "peer.lan:5000,10.0.0.1:5000", "allowed_hosts": "ctx.example.org .wide.org"}
    assert is_known_host(host, host_names(load(names, {}), "Box")) is known


@given(st.text())
def test_any_host_gets_an_answer(host: str) -> None:
    assert is_known_host(host, ["localhost"]) in (True, False)


def test_a_rebound_name_is_refused_everywhere() -> None:
    for path in ("/", "/api/context/latest", "/socket.io/", "/healthz"):
        rebound = {"host": "evil.org:5000", "user_agent": "Mozilla/5.0"}
        assert knock(gate(), path=path, **rebound)[0] == 421
        assert knock(gate(), "POST", path=path, host="evil.org", origin="http://evil.org")[0] == 421
        disguised = {"host": "evil.org", "user_agent": "curl/8.0", "accept_language": ""}
        assert knock(gate(), path=path, **disguised)[0] == 421


def test_origins() -> None:
    site, listed = "https://app.example.org", gate(cors_origins="https://app.example.org")
    status, headers, _ = knock(listed, "POST", origin=site)
    assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (
        200,
        site,
        "Origin",
    )
    assert "Access-Control-Allow-Credentials" not in headers
    for origin in (
        "https://app.example.org.evil",
        "http://app.example.org",
        "null",
        "https://evil",
    ):
        assert knock(listed, "POST", origin=origin)[0] == 403
        assert knock(listed, path="/socket.io/", origin=origin)[0] == 403
        status, headers, _ = knock(listed, origin=origin)
        assert (status, "Access-Control-Allow-Origin" in headers) == (200, False)
    for own in ("http://localhost:5000", "https://localhost:5000"):  # a proxy may end TLS
        assert knock(gate(), "POST", origin=own)[0] == 200
    assert knock(gate(), "POST", origin="http://localhost:5001")[0] == 403
    assert knock(gate(), "POST", origin=site)[0] == 403


def test_preflights_are_answered_without_asking_the_application() -> None:
    asks = {"access_control_request_method": "POST", "access_control_request_headers": "x-a, x-b"}
    listed = gate(cors_origins="https://a.org https://b.org", api_token=TOKEN)
    status, headers, seen = knock(listed, "OPTIONS", origin="https://b.org", **asks)
    assert (status, seen) == (204, None)
    assert headers["Access-Control-Allow-Origin"] == "https://b.org"
    assert headers["Access-Control-Allow-Headers"] == "x-a, x-b"
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert knock(listed, "OPTIONS", origin="https://c.org", **asks)[0] == 403
    with pytest.raises(SettingsError):
        load({"cors_origins": "*"}, {})


@pytest.mark.parametrize(
    "path",
    ["/api/context/latest", "/metrics", "/socket.io", "/socket.io/", "//api/x", "/API/x", "/docsx"],
)
def test_everything_needs_the_token_but_what_is_open(path: str) -> None:
    guarded = gate(api_token=TOKEN)
    status, headers, _ = knock(guarded, path=path)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="context"')
    for wrong in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xe4"):
        assert knock(guarded, path=path, authorization=wrong)[0] == 401
    assert knock(guarded, path=path, authorization=f"bearer {TOKEN}")[0] == 200
    assert knock(gate(), path=path)[0] == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/dashboard/static/js/main.js"])
def test_what_is_open(path: str) -> None:
    assert knock(gate(api_token=TOKEN), path=path)[0] == 200


def test_a_ticket_opens_once_and_only_what_cannot_send_headers() -> None:
    guarded = gate(api_token=TOKEN)
    assert knock(guarded, "GET", "/api/context/latest", "ticket=good")[0] == 401
    status, _, seen = knock(guarded, "GET", "/api/context/stream", "a=1&ticket=good&b=%26")
    assert (status, seen) == (200, "seen:a=1&b=%26")
    assert knock(guarded, "GET", "/api/context/stream", "ticket=good")[0] == 401
    assert knock(guarded, "GET", "/socket.io/", "EIO=4&sid=")[0] == 401
    assert knock(guarded, "GET", "/socket.io/", "EIO=4&sid=x")[0] == 200


def test_tickets_end_and_are_bounded() -> None:
    tickets = Tickets()
    for n in range(MAX_TICKETS):
        tickets.issue(str(n), now=0)
    with pytest.raises(RateLimited):
        tickets.issue("more", now=1)
    assert tickets.redeem("7", now=1)
    assert not tickets.redeem("7", now=1)
    assert not tickets.redeem("8", now=TICKET_S)
    assert not tickets.redeem("never", now=0)
    tickets.issue("more", now=TICKET_S)
    assert tickets.redeem("more", now=TICKET_S + 1)


def test_a_wrong_token_setting_is_not_repeated() -> None:
    with pytest.raises(SettingsError, match=r"api_token=\(hidden\) from CONTEXT_API_TOKEN") as told:
        load({}, {"CONTEXT_API_TOKEN": "hunter2"})
    assert "hunter2" not in str(told.value)


def test_what_another_node_passes_on_needs_its_signature_and_nothing_else() -> None:
    proofs = Proofs("a secret of the cluster")
    what = Passed("GET", "/api/x", "a=1", {})
    signed = proofs.sign(what, b"", sender="n1", caller="", now=time.time())
    door = gate(proofs, api_token=TOKEN)
    status, _, seen = knock(door, query="a=1", context_forwarded=signed)
    assert (status, seen) == (200, "seen:a=1")
    assert knock(door, query="a=2", context_forwarded=signed)[0] == 403
    assert knock(door, path="/socket.io/", query="a=1", context_forwarded=signed)[0] == 403
    authorised = f"Bearer {TOKEN}"
    assert knock(door, authorization=authorised, context_forwarded="x")[0] == 403
    assert knock(gate(), query="a=1", context_forwarded=signed)[0] == 403, "no cluster at all"
