"""Tokens, tickets, hosts and origins against a real node, over every transport."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests
import socketio

from context.client import Client, RequestFailed
from tests.node_process import ROOT, Api, NodeProcess
from tests.streaming import SseReader

TOKEN = "correct-horse-battery"
SITE = "https://app.example.org"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module", params=["eventlet", "threading"])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    env = {"CONTEXT_API_TOKEN": TOKEN, "CONTEXT_CORS_ORIGINS": SITE}
    folder = tmp_path_factory.mktemp("access")
    with NodeProcess(folder, None, "--async-mode", request.param, env=env) as running:
        running.client.headers.update(BEARER)
        yield running


def ticket(node: NodeProcess) -> str:
    answer = node.client.post("/api/context/tickets")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json()["expires_in_s"] == 30
    text: str = answer.json()["ticket"]
    return text


def test_rest_needs_the_token(node: NodeProcess) -> None:
    with Api(node.url) as stranger:
        refused = stranger.get("/api/context/stats")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        body = stranger.post("/api/context/ingest", json=[{"type": "note", "data": {}}] * 1000)
        assert body.status_code == 401
        for path in ("/", "/healthz", "/readyz", "/openapi.json", "/docs/"):
            assert stranger.get(path).status_code == 200
    assert node.client.get("/api/context/stats").status_code == 200
    assert node.client.get("/metrics").status_code == 200


def test_the_client_and_the_command_line_bring_it(node: NodeProcess) -> None:
    with Client(node.url, token=TOKEN) as client:
        told = client.ingest({"type": "note", "data": {"n": "held"}})
        events = client.stream(after=f"{told['cursor'].split(':')[0]}:-1", type="note")
        assert next(events).data["data"] == {"n": "held"}
    with Client(node.url) as stranger, pytest.raises(RequestFailed, match="unauthorized"):
        stranger.stats()
    for env, status in ({"CONTEXT_API_TOKEN": TOKEN}, 0), ({}, 1):
        argv = [sys.executable, str(ROOT / "app.py"), "--search", "held", "--url", node.url]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, "held" in done.stdout) == (status, not status), done.stderr


def test_a_ticket_opens_one_stream(node: NodeProcess) -> None:
    with SseReader(node) as reader:
        assert reader.status == 401
    good = ticket(node)
    with SseReader(node, source="x", ticket=good) as reader:
        assert reader.status == 200
        node.client.ingest({"type": "note", "source": "x", "data": {}})
        reader.wait_items(1)
    with SseReader(node, ticket=good) as reader:
        assert (reader.status, reader.problem["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_ticket_opens_one_socket_io_connection(node: NodeProcess, transport: str) -> None:
    def connect(url: str, headers: dict[str, str]) -> dict[str, object]:
        with requests.Session() as http, contextlib.closing(_Io(http)) as io:
            io.client.connect(url, headers, transports=[transport], wait_timeout=10)
            answer: dict[str, object] = io.client.call("subscribe", {}, timeout=10)
            return answer

    url = f"{node.url}?ticket={ticket(node)}"
    assert connect(url, {})["ok"]
    assert connect(node.url, BEARER)["ok"]
    for refused in (url, node.url):
        with pytest.raises(socketio.exceptions.ConnectionError):
            connect(refused, {})


class _Io:
    def __init__(self, http: requests.Session) -> None:
        self.client = socketio.Client(reconnection=False, http_session=http)

    def close(self) -> None:
        self.client.disconnect()


def test_pages_of_listed_sites_may_call(node: NodeProcess) -> None:
    asks = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization,content-type"
    told = requests.options(f"{node.url}/api/context/search", headers=asks, timeout=10)
    assert (told.status_code, told.headers["Access-Control-Allow-Origin"]) == (204, SITE)
    assert "authorization" in told.headers["Access-Control-Allow-Headers"]
    found = node.client.get("/api/context/latest", headers={"Origin": SITE})
    assert found.headers["Access-Control-Allow-Origin"] == SITE
    shaken = node.client.get("/socket.io/?EIO=4&transport=polling", headers={"Origin": SITE})
    assert shaken.headers["Access-Control-Allow-Origin"] == SITE
    assert shaken.status_code == 200
    for path in ("/socket.io/?EIO=4&transport=polling", "/socket.io?EIO=4&transport=polling"):
        foreign = node.client.get(path, headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403


def test_other_names_are_refused(node: NodeProcess) -> None:
    for path in ("/", "/api/context/latest", "/socket.io/?EIO=4&transport=polling"):
        rebound = {"Host": f"evil.example:{node.port}", "User-Agent": "Mozilla/5.0 (any browser)"}
        answer = node.client.get(path, headers=rebound)
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected_request")
    browser = {"Host": f"localhost:{node.port}", "User-Agent": "Mozilla/5.0 (any browser)"}
    assert node.client.get("/", headers=browser).status_code == 200
    program = {"Host": "any-alias"}
    assert node.client.get("/api/context/latest", headers=program).status_code == 200
