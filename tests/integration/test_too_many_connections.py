"""More connections than the system allows: some are refused, and all that are there go on."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.node_process import ROOT, wait_for

ALLOWED = 200
SERVER = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {ALLOWED}))
from server import accepting, runtime
runtime.patch("eventlet")
accepting.raise_limit()

import os
taken = []

def app(environ, start_response):
    if environ["PATH_INFO"] == "/take":  # all descriptors that are left
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
    if environ["PATH_INFO"] == "/free":
        while taken:
            os.close(taken.pop())
    start_response("200 OK", [("Content-Length", "0")])
    return []

listening = runtime.listen("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
runtime.serve(app, listening, "eventlet", busy=lambda: False)
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Where a process listens that may have so many descriptors; it must live to the end."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
            assert process.poll() is None
        finally:
            process.kill()


def asked(client: http.client.HTTPConnection, path: str = "/") -> int:
    """Status of the answer, 0 where the connection breaks; it stays open."""
    try:
        client.request("GET", path)
        answer = client.getresponse()
        body = answer.read()
    except (ConnectionError, http.client.HTTPException):
        return 0
    if answer.status == 503:
        assert json.loads(body)["code"] == "too_many_connections"
    return answer.status


def test_connections_beyond_the_limit_are_refused_and_the_others_go_on(port: int) -> None:
    with ExitStack() as opened:
        clients = [
            opened.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)))
            for _ in range(ALLOWED + 50)
        ]
        first = [asked(client) for client in clients]
        count = first.count(200)
        assert 100 < count < ALLOWED, "more than a login's limit, but not all"
        assert first == [200] * count + first[count:]
        assert set(first[count:]) <= {0, 503}
        assert 503 in first
        assert [asked(client) for client in clients[:count]] == [200] * count

    def room_again() -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
            return asked(client) == 200

    wait_for(room_again, "room for new ones")


def test_a_process_out_of_descriptors_takes_connections_once_some_are_free(port: int) -> None:
    with (
        closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as known,
        closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as waiting,
    ):
        assert asked(known, "/take") == 200
        waiting.request("GET", "/")  # in the kernel's queue: nobody can take it
        assert asked(known, "/free") == 200
        assert waiting.getresponse().status == 200
