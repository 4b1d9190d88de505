"""Where a call goes while the lead moves, and when it may be sent twice; over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from context.errors import NoLeader, NotLeader, OutcomeUnknown, RateLimited
from nodes.proof import Proofs
from server import problems
from server.agent_client import AgentClient
from server.ipc import Answer, Led
from server.lead import Lead
from server.passing import IDEMPOTENT, Call, Passing

STORED = Answer(201, {}, b"{}")
MOVED = problems.answer(problems.problem(409, "fenced_out", "a newer leader has written"))
NOBODY = Led(term=3)
PLAIN = Call("POST", "/api/context/ingest", "", {}, b"{}", "127.0.0.1")
KEYED = Call("POST", "/api/context/ingest", "", {IDEMPOTENT: "k"}, b"{}", "127.0.0.1")


@pytest.fixture
def lead(tmp_path: Path) -> Lead:
    made = Lead(AgentClient(tmp_path / "none"))
    made.set(Led("me", "http://127.0.0.1:1", 3, here=True))
    return made


@pytest.fixture
def passing(lead: Lead) -> Passing:
    return Passing(lead, "me", Proofs("s" * 16), CollectorRegistry(), 1000)


def nowhere() -> Answer:
    raise AssertionError("this node does not lead")


@contextmanager
def leader(*plays: bytes | None) -> Iterator[Led]:
    """A node that answers each request so; None closes the connection instead."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for play in plays:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return  # the test is over, and nobody asked again
                with sock:
                    while not sock.recv(65536).endswith(b"{}"):
                        pass
                    sock.sendall(play or b"")
            server.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Led("other", f"http://127.0.0.1:{server.getsockname()[1]}", 4)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection
        thread.join(10)


def wire(answer: Answer) -> bytes:
    head = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(answer.body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + answer.body


def soon(work: Callable[[], None]) -> None:
    threading.Timer(0.1, work).start()


def test_a_leader_that_drains_holds_the_call_and_passes_it_to_the_next(
    lead: Lead, passing: Passing
) -> None:
    with leader(wire(STORED)) as other:

        def here() -> Answer:
            lead.set(NOBODY)
            soon(lambda: lead.set(other))
            return MOVED

        assert passing.reach(PLAIN, here).status == 201


def test_a_node_that_becomes_the_leader_answers_itself(lead: Lead, passing: Passing) -> None:
    lead.set(NOBODY)
    soon(lambda: lead.set(Led("me", "http://127.0.0.1:1", 5, here=True)))
    assert passing.reach(PLAIN, lambda: STORED) is STORED


def test_without_a_leader_nothing_is_done(lead: Lead, passing: Passing) -> None:
    lead.set(NOBODY)
    with pytest.raises(NoLeader):
        passing.reach(PLAIN, nowhere)
    lead.set(Led("other", "http://127.0.0.1:1", 4))
    soon(lambda: lead.set(NOBODY))
    with pytest.raises(NoLeader):
        passing.reach(PLAIN, nowhere)


def test_a_leader_that_says_it_is_none_is_asked_again(lead: Lead, passing: Passing) -> None:
    with leader(wire(MOVED), wire(MOVED), wire(STORED)) as other:
        lead.set(other)
        assert passing.reach(PLAIN, nowhere).status == 201


def test_only_what_can_be_repeated_is_sent_again(lead: Lead, passing: Passing) -> None:
    with leader(None, wire(STORED)) as other:
        lead.set(other)
        assert passing.reach(KEYED, nowhere).status == 201
    other_call = replace(KEYED, path="/api/context/ai/decide")  # knows nothing of keys
    for call in (PLAIN, other_call):
        with leader(None, wire(STORED)) as other:
            lead.set(other)
            with pytest.raises(OutcomeUnknown):
                passing.reach(call, nowhere)


def test_a_leader_that_stops_is_not_asked_again_until_another_one_leads(
    lead: Lead, passing: Passing
) -> None:
    stopping = problems.answer(problems.problem(503, "stopping", "this node is stopping"))
    with leader(wire(stopping)) as old, leader(wire(STORED)) as new:
        lead.set(old)
        soon(lambda: lead.set(new))
        assert passing.reach(PLAIN, nowhere).status == 201


def test_an_outcome_that_stays_unknown_is_told(lead: Lead, passing: Passing) -> None:
    with leader(None) as other:
        lead.set(other)
        soon(lambda: lead.set(NOBODY))
        with pytest.raises(OutcomeUnknown):
            passing.reach(KEYED, nowhere)


def test_what_was_passed_on_goes_no_further(lead: Lead, passing: Passing) -> None:
    assert passing.reach(PLAIN, lambda: MOVED, passed_on=True) is MOVED
    with leader(wire(STORED)) as other:
        for led in (other, NOBODY):
            lead.set(led)
            with pytest.raises(NotLeader):
                passing.reach(PLAIN, nowhere, passed_on=True)


def test_bodies_on_their_way_are_bounded(lead: Lead, passing: Passing) -> None:
    large = Call("POST", "/x", "", {}, b"x" * 2000, "")

    def meanwhile() -> Answer:
        lead.set(NOBODY)
        with pytest.raises(RateLimited):
            passing.reach(large, nowhere)
        return STORED

    def here() -> Answer:
        lead.set(NOBODY)
        soon(lambda: lead.set(Led("me", "", 9, here=True)))
        return MOVED

    steps = [meanwhile, here]

    def step() -> Answer:
        return steps.pop()()

    assert passing.reach(PLAIN, step) is STORED
    lead.set(NOBODY)
    soon(lambda: lead.set(Led("me", "", 9, here=True)))
    assert passing.reach(large, lambda: STORED) is STORED, "one alone may be of any size"
