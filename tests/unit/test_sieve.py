"""What the sieve lets through is what the matcher matches."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import Block, Bounds, Columns, line_ends
from context.column import Column
from context.errors import BadPattern
from context.heads import Heads
from context.query import compile_matcher
from context.sieve import sieve_of
from tests.unit.test_literals import JUNK, PATTERNS, cases

PLAIN = st.text('akKsbé1 "x:', min_size=1, max_size=8)
LINES = st.lists(st.one_of(cases().map(lambda case: case[1]), JUNK), min_size=1, max_size=12)


def block(lines: list[str]) -> Block:
    """A block of any text as lines; columns for filters are left out."""
    text = b"".join(line.encode() + b"\n" for line in lines)
    none = Column({}, np.full(len(lines), -1, dtype=np.int32))
    heads = Heads(np.zeros(len(lines)), none, none, none)
    bounds = Bounds(0, len(lines) - 1, 0.0, 0.0, None, None, None, len(text))
    return Block(bounds, text, Columns(line_ends(text), heads, ((0, 1.0),)))


@settings(max_examples=400, deadline=None)
@given(
    query=st.one_of(PATTERNS.map(lambda p: (p[0], True)), PLAIN.map(lambda t: (t, False))),
    ignore_case=st.booleans(),
    lines=LINES,
    filler=st.integers(0, 200),
)
def test_the_sieve_finds_what_the_matcher_finds(
    query: tuple[str, bool], ignore_case: bool, lines: list[str], filler: int
) -> None:
    text, regex = query
    try:
        matcher = compile_matcher(text, regex=regex, ignore_case=ignore_case)
    except BadPattern:
        return
    made = block([*lines[:6], *["~~~~"] * filler, *lines[6:]])
    sieve = sieve_of(matcher)
    found = sieve.hits(made) if sieve else None
    wanted = matcher.hits(made.text, made.ends, 0, made.count)
    assert found is None or found.tolist() == wanted.tolist()


def test_it_works_where_matches_are_few_and_gives_up_where_they_are_many() -> None:
    lines = [f'{{"n":{i}}}' for i in range(1000)]
    for text, regex, count in (
        ('"n":77', False, 11),
        ("[0-9]77|:77", True, 19),
        (":7.}", True, 10),
    ):
        sieve = sieve_of(compile_matcher(text, regex=regex, ignore_case=False))
        assert sieve
        found = sieve.hits(block(lines))
        assert found is not None
        assert len(found) == count
    often = sieve_of(compile_matcher('"n":', regex=False, ignore_case=False))
    assert often
    assert often.hits(block(lines)) is None
