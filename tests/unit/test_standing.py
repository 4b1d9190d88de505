"""A standing query must find in every batch what it would find there alone."""

import threading

import hyperscan
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from context import standing
from context.adapters.standing_compiler import StandingCompiler
from context.errors import BadPattern, RateLimited
from context.literals import of_pattern
from context.pattern import parse
from context.prefilter import superset
from context.query import compile_matcher
from context.standing import StandingSet
from tests.unit.test_literals import JUNK, PATTERNS, cases

PLAIN = st.text('akKsbé1 "x:\n\0', max_size=8)
LINES = st.lists(st.one_of(cases().map(lambda case: case[1]), JUNK), min_size=1, max_size=12)


def batch(lines):
    """Text and line ends."""
    text = "".join(line + "\n" for line in lines).encode()
    return text, np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10).astype(np.int32)


def found(waiting, lines):
    return {number: hits.tolist() for number, hits in waiting.match(*batch(lines)).items()}


def compiled(waiting):
    """Compile until nothing is due."""
    while work := waiting.due():
        waiting.install(work.run())


class Standing(RuleBasedStateMachine):
    """Adding, removing and compiling in any order, against one matcher a query."""

    def __init__(self):
        super().__init__()
        self.waiting = StandingSet()
        self.queries = {}
        self.counts = {}
        self.running = []

    @rule(
        query=st.one_of(PATTERNS.map(lambda p: (p[0], True)), PLAIN.map(lambda t: (t, False))),
        ignore_case=st.booleans(),
    )
    def add(self, query, ignore_case):
        text, regex = query
        try:
            matcher = compile_matcher(text, regex=regex, ignore_case=ignore_case)
        except BadPattern:
            return
        number = self.waiting.add(text, regex=regex, ignore_case=ignore_case)
        assert self.queries.setdefault(number, matcher) == matcher
        self.counts[number] = self.counts.get(number, 0) + 1

    @precondition(lambda self: self.queries)
    @rule(data=st.data())
    def remove(self, data):
        number = data.draw(st.sampled_from(sorted(self.queries)))
        self.waiting.remove(number)
        self.counts[number] -= 1
        if not self.counts[number]:
            del self.queries[number], self.counts[number]

    @rule()
    def begin(self):
        work = self.waiting.due()
        if work:
            self.running.append(work)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data):
        work = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.waiting.install(work.run())

    @rule(lines=LINES)
    def match(self, lines):
        text, ends = batch(lines)
        expected = {
            number: hits
            for number, matcher in self.queries.items()
            if (hits := matcher.hits(text, ends, 0, len(ends)).tolist())
        }
        assert found(self.waiting, lines) == expected

    @invariant()
    def counted(self):
        assert len(self.waiting) == len(self.queries)
        assert len(self.running) <= 2


Standing.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestStanding = Standing.TestCase


@settings(max_examples=2000, deadline=None)
@given(case=cases(), ignore_case=st.booleans())
def test_hyperscan_proposes_whatever_matches(case, ignore_case):
    query, line = case
    try:
        matcher = compile_matcher(query, regex=True, ignore_case=ignore_case)
    except BadPattern:
        return
    pattern = parse(query, regex=True, ignore_case=ignore_case)
    formula = of_pattern(pattern) if pattern else None
    if not formula or not formula.needs or not matcher.matches(line.encode()):
        return
    for expression in (superset(pattern, formula), superset(pattern, formula, max_bytes=0)):
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        database.compile(expressions=[expression], flags=0)
        proposed: list[int] = []
        note = lambda number, start, end, flags, ends: ends.append(end)  # noqa: E731
        database.scan(line.encode() + b"\n", match_event_handler=note, context=proposed)
        assert proposed == [len(line.encode()) + 1]


def test_equal_queries_share_their_id_until_each_is_removed():
    waiting = StandingSet()
    one = waiting.add("buy", regex=False, ignore_case=False)
    assert waiting.add("buy", regex=False, ignore_case=False) == one
    assert waiting.add("buy", regex=False, ignore_case=True) != one
    waiting.remove(one)
    assert found(waiting, ["a buy"])[one] == [0]
    waiting.remove(one)
    assert one not in found(waiting, ["a buy"])
    with pytest.raises(KeyError):
        waiting.remove(one)


def test_queries_without_a_literal_are_refused_beyond_a_bound(monkeypatch):
    monkeypatch.setattr(standing, "MAX_ALONE", 2)
    monkeypatch.setattr(standing, "MAX_QUERIES", 3)
    waiting = StandingSet()
    first = waiting.add("[0-9]{7}", regex=True, ignore_case=False)
    waiting.add("", regex=False, ignore_case=False)
    with pytest.raises(RateLimited, match="literal"):
        waiting.add("\\d+", regex=True, ignore_case=False)
    waiting.add("\\d+ EUR", regex=True, ignore_case=False)
    with pytest.raises(RateLimited, match="3 standing queries"):
        waiting.add("x", regex=False, ignore_case=False)
    waiting.remove(first)
    waiting.add("\\d+", regex=True, ignore_case=False)


def test_what_hyperscan_refuses_is_matched_alone(monkeypatch):
    monkeypatch.setattr(standing, "superset", lambda *_: b"(")
    waiting = StandingSet()
    numbers = [
        waiting.add(query, regex=True, ignore_case=False) for query in ("ab.", "abc", "a.c", "xyz.")
    ]
    compiled(waiting)
    assert found(waiting, ["abc", "ab"]) == {number: [0] for number in numbers[:3]}


def test_levels_stay_few_and_forget_what_is_removed():
    waiting = StandingSet()
    numbers = []
    for i in range(300):
        numbers.append(waiting.add(f"needle {i:04d}", regex=False, ignore_case=False))
        compiled(waiting)
    assert len(waiting.levels) <= 6
    for number in numbers[10:]:
        waiting.remove(number)
    compiled(waiting)
    assert sum(len(level.numbers) for level in waiting.levels) <= 20
    assert found(waiting, ["needle 0005", "needle 0011"]) == {numbers[5]: [0]}


def test_the_compiler_takes_over_in_the_background():
    waiting, lock = StandingSet(), threading.Lock()
    compiler = StandingCompiler(waiting, lock)
    done = threading.Event()
    install = waiting.install

    def installed(built):
        install(built)
        done.set()

    waiting.install = installed
    with lock:
        number = waiting.add("buy.*volume", regex=True, ignore_case=False)
        assert found(waiting, ["buy volume", "buy"]) == {number: [0]}
    compiler.wake()
    assert done.wait(10)
    with lock:
        assert [level.numbers for level in waiting.levels] == [(number,)]
        assert found(waiting, ["buy", "buy volume"]) == {number: [1]}
