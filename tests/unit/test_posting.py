"""Many bodies at a time on one connection: every answer reaches who asked."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import msgspec
import pytest

from server import ipc
from server.ipc import Answer, Posted, Told
from server.posting import Line

MANY = 32
Post = Callable[..., Future[Answer]]
_decode = msgspec.msgpack.Decoder(Posted).decode


class Agent:
    """The other end: hears of bodies, and answers when it is told to."""

    def __init__(self, timeout_s: float = 60.0) -> None:
        self.sock, far = socket.socketpair()
        self.sock.settimeout(10)
        self.line = Line(far, timeout_s)
        self._begun = b""

    def hear(self) -> Posted:
        payload, self._begun = ipc.receive(self.sock, self._begun)
        return _decode(payload)

    def tell(self, *posted: Posted) -> None:
        told = [Told(each.number, 201, {"Name": each.params["name"]}, each.body) for each in posted]
        self.sock.sendall(b"".join(map(ipc.pack, told)))


@pytest.fixture
def agent() -> Iterator[Agent]:
    made = Agent()
    yield made
    made.line.lose(ConnectionResetError("the test is over"))
    made.sock.close()


@pytest.fixture
def post(agent: Agent) -> Iterator[Post]:
    with ThreadPoolExecutor(MANY) as pool:

        def submit(number: int, body: bytes) -> Future[Answer]:
            return pool.submit(agent.line.post, {"name": str(number)}, body)

        yield submit


def test_answers_in_any_order_reach_who_asked(agent: Agent, post: Post) -> None:
    bodies = [b"%d" % n * (1 + 500 * n) for n in range(MANY)]
    waiting = [post(n, body) for n, body in enumerate(bodies)]
    heard = sorted((agent.hear() for _ in bodies), key=lambda posted: posted.body)
    agent.tell(*heard[::2])
    agent.tell(*heard[1::2])
    answers = [each.result(10) for each in waiting]
    assert [each.body for each in answers] == bodies
    assert [each.headers["Name"] for each in answers] == [str(n) for n in range(MANY)]


def test_who_waits_hears_that_the_agent_went_away(agent: Agent, post: Post) -> None:
    waiting = [post(n, b"{}") for n in range(MANY)]
    for _ in waiting:
        agent.hear()
    agent.sock.close()
    for each in waiting:
        with pytest.raises(OSError, match="closed"):
            each.result(10)
    with pytest.raises(OSError, match="closed"):
        post(0, b"{}").result(10)


def test_a_full_connection_holds_nobody_for_ever(agent: Agent, post: Post) -> None:
    waiting = [post(n, bytes(ipc.SMALL_BYTES)) for n in range(8)]  # more than the kernel takes
    agent.hear()
    agent.sock.close()
    for each in waiting:
        with pytest.raises(OSError, match=r"closed|reset|[Bb]roken"):
            each.result(10)


def test_an_agent_that_does_not_answer_is_given_up() -> None:
    agent = Agent(timeout_s=0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agent.line.post, {"name": "0"}, b"{}")
        with pytest.raises(TimeoutError):
            waiting.result(10)
    assert agent.line.lost
    agent.hear()
    assert agent.sock.recv(1) == b""
    agent.sock.close()


def test_one_answer_that_is_missing_is_noticed_among_others() -> None:
    agent = Agent(timeout_s=0.2)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(agent.line.post, {"name": "never"}, b"{}")
        agent.hear()
        deadline = time.monotonic() + 10
        with suppress(ConnectionError):  # others are answered until the connection is given up
            while time.monotonic() < deadline:
                pool.submit(agent.line.post, {"name": "soon"}, b"{}")
                agent.tell(agent.hear())
        with pytest.raises(TimeoutError):
            waiting.result(10)
    agent.sock.close()


def test_a_connection_that_nobody_uses_stays() -> None:
    agent = Agent(timeout_s=0.02)
    agent.sock.settimeout(0.05)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            with pytest.raises(TimeoutError):  # for longer than anybody may wait
                agent.sock.recv(1)
            waiting = pool.submit(agent.line.post, {"name": "0"}, b"{}")
            agent.tell(agent.hear())
            assert waiting.result(10).status == 201
    agent.line.lose(ConnectionResetError("the test is over"))
    agent.sock.close()
