"""The pure parts of webhooks: what is due, how it is signed, what an answer means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.block import Block
from context.errors import InvalidRequest
from context.filter import Filter
from context.index import Index
from context.items import Batch, Cursor
from context.query import Selection, compile_matcher
from context.webhook import (
    LONGEST_ASKED_S,
    LONGEST_PAUSE_S,
    Hook,
    check_url,
    key_of,
    make_secret,
    pause_s,
    signed,
    verdict,
)
from context.webhook_reading import MAX_ITEMS, Delivery, Reader

FIRST, COUNT = 5, 2000


def lines() -> list[bytes]:
    made = ({"type": "note", "source": "ab"[n % 2], "timestamp": n, "data": {"n": n}}
            for n in range(COUNT))  # fmt: skip
    return [json.dumps(item, separators=(",", ":")).encode() for item in made]


def build() -> Index:
    """An index of batches of 50 items from FIRST on."""
    blocks: dict[int, Block] = {}
    index = Index(lambda bounds: blocks[bounds.first_offset])
    all_lines = lines()
    for at in range(0, COUNT, 50):
        text = b"".join(line + b"\n" for line in all_lines[at : at + 50])
        index.apply(Batch(FIRST + at, 50, 9.0, 1, text))
    return index


SNAPSHOT = build().snapshot()
NEWEST = FIRST + COUNT - 1


@pytest.mark.parametrize("query", [None, '"n":1', '"n":1999}', "nowhere"])
@pytest.mark.parametrize("until", [None, 700, NEWEST])
def test_deliveries_put_together_are_what_a_plain_loop_finds(
    query: str | None, until: int | None
) -> None:
    matcher = None if query is None else compile_matcher(query, regex=False, ignore_case=False)
    reader = Reader("k1", "wh1", Selection(Filter(source="a"), matcher))
    at, seen, ids = Cursor("k1", FIRST - 1), [], set()
    end = NEWEST if until is None else until
    while at.offset < end:
        due = reader.after(SNAPSHOT, at, until)
        if isinstance(due, Delivery):
            body = json.loads(due.body)
            assert body["gap"] is None
            assert due.count == len(body["items"]) <= MAX_ITEMS
            assert (body["delivery_id"], body["cursor"]) == (due.id, str(due.cursor))
            assert reader.after(SNAPSHOT, at, until) == due  # the same again
            seen += [item["offset"] for item in body["items"]]
            ids.add(due.id)
            due = due.cursor
        assert due > at
        at = due
    wanted = [
        FIRST + n
        for n, line in enumerate(lines())
        if b'"source":"a"' in line and (query is None or query.encode() in line)
    ]
    assert seen == [offset for offset in wanted if offset <= end]
    assert at == Cursor("k1", end)


def test_what_is_gone_is_a_gap() -> None:
    reader = Reader("k1", "wh1", Selection())
    for after, until, first, last in (
        (Cursor("k0", 7), None, "k0:8", f"k1:{FIRST - 1}"),
        (Cursor("k1", 1), None, "k1:2", f"k1:{FIRST - 1}"),
        (Cursor("k1", 1), 3, "k1:2", "k1:3"),
    ):
        due = reader.after(SNAPSHOT, after, until)
        assert isinstance(due, Delivery)
        body = json.loads(due.body)
        assert body["gap"] == {"missed_from": first, "missed_to": last}
        assert (body["items"], body["cursor"]) == ([], last)


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks reference implementations."""
    sent = Delivery("msg_p5jXN8AQM9LWM0D4loKWxJek", Cursor("k1", 0), 1, b'{"test": 2432232314}')
    headers = signed(sent, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330.9)
    assert headers == {
        "webhook-id": sent.id,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_secrets() -> None:
    assert key_of(make_secret(b"x" * 24)) == b"x" * 24
    for wrong in ("", "whsec_", "whsec_" + "é" * 40, make_secret(b"x" * 65), "x" * 40):
        with pytest.raises(InvalidRequest):
            key_of(wrong)


def test_what_answers_mean() -> None:
    assert {verdict(status) for status in (200, 201, 204, 299)} == {"delivered"}
    assert {verdict(s) for s in (100, 300, 302, 400, 404, 429, 500, 503)} == {"failed"}
    assert verdict(410) == "gone"


@given(st.integers(1, 2000), st.floats(0, 1), st.text())
def test_pauses_grow_within_bounds(attempts: int, chance: float, asked: str) -> None:
    assert 0.5 <= pause_s(attempts, {}, chance) <= LONGEST_PAUSE_S
    assert pause_s(attempts, {}, chance) <= pause_s(attempts + 1, {}, chance)
    assert pause_s(attempts, {"retry-after": asked}, chance) <= LONGEST_ASKED_S
    assert pause_s(attempts, {"retry-after": "600"}, chance) == 600


@pytest.mark.parametrize(
    ("url", "allowed", "good"),
    [
        ("http://x/", (), True),
        ("https://x.example.org:8443/a?b=c", ("*.example.org",), True),
        ("https://EXAMPLE.org/", ("example.org",), True),
        ("https://example.org.evil/", ("example.org", "*.example.org"), False),
        ("http://169.254.169.254/", ("10.*",), False),
        ("http://x:99999/", (), False),
        ("http://x/#part", (), False),
        ("http://x/ y", (), False),
        ("file:///etc/passwd", (), False),
        ("http://[::1/", (), False),
    ],
)
def test_addresses(url: str, allowed: tuple[str, ...], good: bool) -> None:
    if good:
        check_url(url, allowed)
    else:
        with pytest.raises(InvalidRequest):
            check_url(url, allowed)


def test_a_hook_counts() -> None:
    hook = Hook(id="wh1", url="", secret="", wish={}, created_at=0, cursor="k1:3")
    sent = Delivery("wh1.k1.4.9", Cursor("k1", 9), 2, b"")
    tried = hook.failed("no", 5, attempts=1).succeeded(sent, 6)
    assert (tried.cursor, tried.attempts, tried.failures, tried.delivered) == ("k1:9", 0, 1, 2)
    dead = hook.failed("no", 5, attempts=1).given_up(sent, most=2)
    assert (dead.cursor, dead.attempts, dead.dead_letters, dead.state) == ("k1:9", 0, 1, "active")
    assert dead.given_up(sent, most=2).state == "stopped"
    assert dead.stopped("x").resumed() == dead
    again = dead.sent_again(sent, 7).one_less_dead()
    assert (again.cursor, again.delivered, again.dead_letters) == ("k1:9", 2, 0)
