"""The chain over decisions: any change of what is stored is found, and nothing else is blamed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_bridge.bridge import Bridge
from ai_bridge.chain import Head, is_whole, linked, mark, seal, tail
from ai_bridge.chain_walk import Report, Walk, holes
from ai_bridge.explaining import explanation
from ai_bridge.impact import impact
from ai_bridge.models.builtin import builtin_models
from ai_bridge.ports import Question
from ai_bridge.series import Series
from ai_bridge.settings import ModelSettings
from context.ingest import encode_checked, make_item
from context.types import Types

EPOCH = "k3v9x"
Line = tuple[int, bytes]
NO_HEAD = Head()


def decided(number: int) -> dict[str, object]:
    """A real decision on some prices, as plain data."""
    rng = random.Random(number)
    at = np.arange(60.0)
    prices = 100 + np.cumsum([rng.gauss(0, 0.1) for _ in at])
    series = Series("BTC/USD", "test", at, prices, np.ones(60), np.sign(rng.random() - at % 2))
    question = Question(("BTC/USD",), {"BTC/USD": series}, now=1_700_000_000.0 + number)
    bridge = Bridge([])
    for model in builtin_models():
        bridge.add(model, ModelSettings(weight=0.5 + rng.random()), digest=f"{number:064x}")
    done = asyncio.run(bridge.decide(question, deadline_s=5, clock=time.monotonic))
    return done.record(f"d{number}", term=1, context_id="ctx_1")


def chained(datas: Sequence[dict[str, object]], head: Head = NO_HEAD) -> list[Line]:
    """Entries as the node writes them, with other items between them."""
    lines: list[Line] = []
    for number, data in enumerate(datas):
        item = make_item("ai_decision", linked(data, EPOCH, head.seq + 1), source="node-é")
        text = encode_checked([item], Types(), now=1_700_000_000.5).text
        line, head = seal(text.rstrip(b"\n"), head)
        lines.append((2 * number, line))
        noise = {"text": 'its "chain":{"epoch":"other","seq":1', "hash": "0" * 64}
        other = make_item("note", {"inner": noise}, source="x")
        lines.append((2 * number + 1, encode_checked([other], Types(), now=1.0).text.rstrip()))
    return lines


DECISIONS = [decided(number) for number in range(6)]
LINES = chained(DECISIONS)


def verified(lines: Sequence[Line], *expected: Head, dropped: Sequence[Line] = ()) -> Report:
    walk = Walk(EPOCH, dropped=[(offset, offset) for offset, _ in dropped])
    for head in expected:
        walk.expect(head)
    for offset, line in lines:
        walk.see(offset, line)
    return walk.finish()


def as_text(lines: Sequence[Line]) -> Report:
    """The same, by whole texts."""
    walk = Walk(EPOCH)
    walk.see_text(lines[0][0], b"".join(line + b"\n" for _, line in lines))
    return walk.finish()


def test_a_chain_as_written_is_whole_and_replays() -> None:
    report = verified(LINES)
    assert report.ok
    assert (report.entries, report.decisions, report.replayed) == (6, 6, 6)
    assert report.head["hash"] == tail(LINES[10][1])[2]  # type: ignore[index]
    assert as_text(LINES) == report
    assert all(is_whole(line) for _, line in LINES[::2])
    stored = json.loads(LINES[2][1])["data"]["chain"]
    assert stored["prev"] == json.loads(LINES[0][1])["data"]["chain"]["hash"]
    assert mark(EPOCH) in LINES[0][1]


@settings(max_examples=300)
@given(st.integers(0, 5), st.data())
def test_a_flipped_byte_anywhere_in_an_entry_is_found(entry: int, data: st.DataObject) -> None:
    offset, line = LINES[2 * entry]
    at = data.draw(st.integers(0, len(line) - 1))
    bad = bytearray(line)
    bad[at] ^= data.draw(st.integers(1, 255))
    changed = [(o, bytes(bad) if o == offset else each) for o, each in LINES]
    report = verified(changed)
    assert not report.ok
    assert report.problems[0].offset in (offset, offset + 2)
    whole_text = b"".join(each + b"\n" for _, each in changed)
    if whole_text.count(b"\n") == len(changed):
        assert not as_text(changed).ok


def test_every_byte_of_the_newest_entry_counts() -> None:
    offset, line = LINES[10]
    for at in range(len(line)):
        bad = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        assert not verified([*LINES[:10], (offset, bad)]).ok, (at, line[at : at + 20])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_removed_added_repeated_and_reordered_entries_are_found(order: list[int]) -> None:
    told = [LINES[2 * number] for number in order]
    report = verified([(n, line) for n, (_, line) in enumerate(told)])
    assert report.ok == (order == list(range(len(order))))


def test_a_log_cut_short_shows_only_by_a_head_kept_elsewhere() -> None:
    newest = Head(5, json.loads(LINES[10][1])["data"]["chain"]["hash"])
    assert verified(LINES, newest).ok
    cut = LINES[:8]
    assert verified(cut).ok
    assert [each.kind for each in verified(cut, newest).problems] == ["head"]
    again = chained([*DECISIONS[:3], decided(99), *DECISIONS[4:]])
    assert verified(again).ok
    assert [each.kind for each in verified(again, newest).problems] == ["head"]


def test_retention_leaves_an_anchor_and_missing_entries_do_not_pass_for_it() -> None:
    report = verified(LINES[6:], dropped=LINES[:6])
    assert report.ok
    former = json.loads(LINES[4][1])["data"]["chain"]
    assert report.anchor == {"seq": 2, "hash": former["hash"]}
    assert [each.kind for each in verified(LINES[6:]).problems] == ["missing"]
    middle = verified([*LINES[:4], *LINES[8:]], dropped=LINES[4:8])
    assert middle.ok
    assert [(gap["first_seq"], gap["last_seq"]) for gap in middle.gaps] == [(2, 3)]


def test_a_decision_that_does_not_replay_is_named() -> None:
    forged = {**DECISIONS[0], "confidence": 0.99}
    report = verified(chained([forged]))
    assert [each.kind for each in report.problems] == ["replay"]


def test_what_is_no_entry_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="not entry 4"):
        seal(LINES[0][1], Head(3))
    with pytest.raises(ValueError, match="not entry 0"):
        seal(b'{"type":"note","data":{}}', Head())


def test_impact_is_what_replay_says_without_each() -> None:
    record = DECISIONS[1]
    found = impact(record)
    voters = {vote["model"] for vote in record["votes"] if vote["weight"]}  # type: ignore[attr-defined]
    assert len(voters) >= 2
    assert {each["model"] for each in found} == voters
    assert found == sorted(found, key=lambda each: -each["shift"])
    assert all(0 <= each["shift"] <= 1 for each in found)
    alone = {**record, "votes": [vote for vote in record["votes"] if vote["weight"]][:1]}  # type: ignore[attr-defined]
    assert impact(alone)[0]["final_decision"] is None


def test_an_explanation_reads_as_text() -> None:
    record = msgspec.json.decode(LINES[0][1])["data"]
    outcome = {"outcome": "buy", "return": 0.01, "weights_before": {"momentum": 1.0},
               "weights_after": {"momentum": 1.25}}  # fmt: skip
    text = explanation(record, impact(record), outcome, whole=True)
    for part in ("about BTC/USD", "ctx_1", "momentum 1.000 to 1.250", "Entry 0", "return +1.00"):
        assert part in text
    assert "not known yet" in explanation(record, impact(record), None, whole=None)


def test_holes_are_what_no_span_holds() -> None:
    assert holes([]) == []
    assert holes([(3, 5), (0, 1), (9, 9), (4, 6)]) == [(2, 2), (7, 8)]
    assert holes([(0, 9), (2, 3), (10, 12)]) == []
