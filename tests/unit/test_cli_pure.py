"""The command line's arithmetic: moments, pace, arguments and what is shown."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.cli import render
from server.cli.pacing import MAX_ITEMS, MAX_LINE_BYTES, MAX_PACE_S, BadLine, plan
from server.cli.parser import OPTIONS, VERBS, build_parser, misplaced, verb_of
from server.cli.render import search_footer
from server.cli.timespec import parse_moment, show_moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1723161256.322", 1723161256.322),
        ("2024-08-08T23:54:16.322Z", 1723161256.322),
        ("2024-08-09T01:54:16.322+02:00", 1723161256.322),
        ("2024-08-08", 1723075200.0),
        ("-15m", 1000 - 900),
        ("-1.5h", 1000 - 5400),
        ("-5", -5.0),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert parse_moment(text, 1000.0) == seconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "-15x", "15m", "yesterday", "2024-13-01"])
def test_wrong_moments_say_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_moment(text, 0.0)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2)))
def test_shown_moments_can_be_given_back(moment: datetime) -> None:
    seconds = moment.timestamp()
    assert abs(parse_moment(show_moment(seconds), 0.0) - seconds) <= 0.0011


STAMPS = st.lists(st.none() | st.floats(0, 5, allow_nan=False).map(lambda x: round(x, 3)))


def recorded(stamps: list[float | None]) -> list[bytes]:
    return [
        json.dumps({"type": "note", "timestamp": stamp, "data": {"n": n}}).encode() + b"\n"
        for n, stamp in enumerate(stamps)
    ]


@given(STAMPS, st.sampled_from([0.0, 0.5, 1.0, 50.0]))
def test_plan_sends_all_in_order_and_on_time(stamps: list[float | None], speed: float) -> None:
    lines = recorded(stamps)
    batches = list(plan(lines, speed))
    assert b"".join(batch.body for batch in batches) == b"".join(lines)
    assert [n for batch in batches for n in batch.numbers] == list(range(1, len(lines) + 1))
    due: list[float] = []
    known = [stamp for stamp in stamps if stamp is not None]
    for n in range(len(stamps)):
        seen = [stamp for stamp in stamps[: n + 1] if stamp is not None]
        due.append((max(seen) - known[0]) / speed if seen and speed else 0.0)
    for batch in batches:
        first, last = batch.numbers[0] - 1, batch.numbers[-1] - 1
        assert batch.due_s == due[last]
        assert due[last] - due[first] <= MAX_PACE_S


def test_plan_fills_requests_and_skips_blank_lines() -> None:
    lines = [b"\n", *recorded([1.0] * (2 * MAX_ITEMS + 1)), b"  \n"]
    batches = list(plan(lines, 0))
    assert [len(batch.numbers) for batch in batches] == [MAX_ITEMS, MAX_ITEMS, 1]
    assert batches[0].numbers[0] == 2
    wide = b'{"type":"note","data":{"x":"' + b"y" * 500_000 + b'"}}\n'
    assert [len(batch.numbers) for batch in plan([wide] * 20, 0)] == [8, 8, 4]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'"x"',
        b'{"type":"note"}',
        b'{"type":"note","data":{"x":NaN}}',
        b'{"type":"note","data":{},"typo":1}',
        b'{"type":"note","data":{"x":"\xff"}}',
        b"[" * 100_000,
        b" " * MAX_LINE_BYTES,
    ],
)
def test_plan_stops_at_a_bad_line_after_those_before_it(line: bytes) -> None:
    batches = plan([*recorded([1.0, 2.0]), b"\n", line, *recorded([3.0])], 0)
    assert next(batches).numbers == [1, 2]
    with pytest.raises(BadLine, match="line 4 is not an item"):
        next(batches)


def test_times_ago_and_cursors_are_values_not_options() -> None:
    args = build_parser().parse_args(["--search", "x", "--since", "-15m", "--before", "e:-1"])
    assert abs(time.time() - 900 - args.since) < 60
    assert args.before == "e:-1"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--status", "--tail"],
        ["--search"],
        ["--search", "x", "--limit", "0"],
        ["--search", "x", "--limit", "ten"],
        ["--search", "x", "--since", "soon"],
        ["--replay", "f", "--speed", "-1"],
        ["--replay", "f", "--speed", "nan"],
        ["--stat"],
    ],
)
def test_wrong_arguments_end_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(argv)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_options_belong_to_verbs() -> None:
    args = build_parser().parse_args(["--status", "--port", "1"])
    assert misplaced(args) == "--port goes with --node, not with --status"
    args = build_parser().parse_args(["--search", "", "--speed", "0"])
    assert misplaced(args) == "--speed goes with --replay, not with --search"
    args = build_parser().parse_args(["--search", "x", "--limit", "10001"])
    assert "--limit must be at most 10000" in (misplaced(args) or "")
    args = build_parser().parse_args(["--ai-decision", "A/B", "C/D", "--deadline-ms", "5"])
    assert (misplaced(args), verb_of(args)) == (None, "ai_decision")
    known = set(vars(args)) - set(VERBS)
    assert known == set().union(*OPTIONS.values())


def test_a_node_that_was_told_nothing_has_no_settings() -> None:
    args = vars(build_parser().parse_args(["--node", "--feed", "a", "--feed", "b:c"]))
    assert args["feed"] == ["a", "b:c"]
    assert {name: args[name] for name in OPTIONS["node"] - {"feed"}} == dict.fromkeys(
        OPTIONS["node"] - {"feed"}
    )


HIT = {
    "offset": 41,
    "type": "note",
    "source": "a\x1b[31m",
    "timestamp": 1723161256.322,
    "data": {"x": "é\x9b1"},
    "line": '{"x":"é\x9b1"}',
    "matches": [[5, 8]],
}


def test_a_hit_marks_its_matches_and_hides_controls() -> None:
    [line] = render.hit_lines(HIT)
    assert line.plain == '2024-08-08 23:54:16.322Z note a�[31m 41:{"x":"é�1"}'
    marked = [line.plain[span.start : span.end] for span in line.spans if span.style == "bold red"]
    assert marked == ['"é�']
    around = {"before": [HIT], "after": [HIT, HIT]}
    marks = [
        line.plain[line.plain.index("41") + 2]
        for line in render.hit_lines(HIT | {"context": around})
    ]
    assert marks == ["-", ":", "-", "-"]


def shown(view: object) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_a_decision_shows_every_vote() -> None:
    decision = {
        "decision_id": "d1",
        "final_decision": "buy",
        "confidence": 0.61234567,
        "agreement": 1.0,
        "reasoning": "two of [three] rise",
        "abstained": False,
        "votes": [
            {"model": "trend", "status": "ok", "decision": "buy", "latency_ms": 12.5},
            {"model": "far", "status": "timeout", "decision": None, "latency_ms": 5000.0},
        ],
    }
    text = shown(render.decision_view(decision))
    assert "BUY" in text
    assert "0.6123" in text
    assert "two of [three] rise" in text
    assert "timeout" in text
    assert "ABSTAINED" in shown(render.decision_view(decision | {"abstained": True}))


def test_nested_documents_are_shown_by_dotted_names() -> None:
    assert shown(render.pairs_view({"a": {"b": 1, "c": {}}, "d": [1, 2]})).split() == [
        *("a.b", "1", "a.c", "{}", "d", "[1,2]")
    ]


def test_a_search_tells_what_it_could_not_read() -> None:
    page = {
        "items": [],
        "next": None,
        "partial": False,
        "elapsed_ms": 1.5,
        "scanned": {"blocks": 2, "skipped": 3, "bytes": 10},
        "damaged": [{"first": 500, "last": 999}, {"first": 0, "last": 99}],
    }
    told = search_footer(page)
    assert "items 500-999, 0-99 cannot be read: their blocks are damaged" in told
    assert "damaged" not in search_footer({**page, "damaged": []})
