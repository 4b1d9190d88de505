"""Searching many lines at once must give what each line alone would give."""

import re

import numpy as np
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from context.errors import BadPattern
from context.query import MAX_SPANS, Matcher, compile_matcher

LINES = st.lists(st.text('ab1é€ß😀K "x\\', max_size=8), min_size=1, max_size=8)
ATOMS = [
    *["a", "b", "1", "é", "😀", ".", "\\d", "\\D", "\\w", "\\W", "\\s", "\\S", "[^a]", "[^é1]"],
    *[
        "^",
        "$",
        "\\b",
        "\\B",
        "\\A",
        "\\z",
        "\\n",
        "[\\s\\n]",
        "\\C",
        "\\pL",
        "\\PL",
        "[[:^alpha:]]",
    ],
    *["(?i)", "(?s)", "(?-m)", "(?s-m:a.)", "(?m-s)", "(?U)", "\\x{a}", "\\QA.z\\E", "a\\z?"],
]
PATTERNS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map("({})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{0,2}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


def hits(matcher: Matcher, lines: list[str], first: int = 0, last: int | None = None) -> list[int]:
    text = "".join(line + "\n" for line in lines).encode()
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10).astype(np.int32)
    return matcher.hits(text, ends, first, len(lines) if last is None else last).tolist()


@settings(max_examples=1500, deadline=None)
@given(pattern=PATTERNS, lines=LINES, ignore_case=st.booleans(), data=st.data())
def test_a_pattern_over_many_lines_equals_line_by_line(pattern, lines, ignore_case, data):
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        alone = re2.compile(pattern, options)
    except re2.error:
        with pytest.raises(BadPattern):
            compile_matcher(pattern, regex=True, ignore_case=ignore_case)
        return
    matcher = compile_matcher(pattern, regex=True, ignore_case=ignore_case)
    expected = [i for i, line in enumerate(lines) if alone.search(line)]
    assert hits(matcher, lines) == expected
    assert [i for i, line in enumerate(lines) if matcher.matches(line.encode())] == expected
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first + 1, len(lines)))
    assert hits(matcher, lines, first, last) == [i for i in expected if first <= i < last]


@settings(max_examples=300, deadline=None)
@given(query=st.text("ab1é€\n ", max_size=4), lines=LINES, regex=st.booleans())
def test_plain_text_equals_the_in_operator(query, lines, regex):
    matcher = compile_matcher(query, regex=regex, ignore_case=False)
    expected = [i for i, line in enumerate(lines) if query in line]
    assert hits(matcher, lines) == expected
    for i, line in enumerate(lines):
        assert matcher.matches(line.encode()) == (i in expected)
        found = [match.span() for match in re.finditer(re.escape(query), line)] if query else []
        assert matcher.spans(line.encode()) == found


@settings(max_examples=500, deadline=None)
@given(
    pattern=st.sampled_from(
        ["[aé]+", "x*", r"\b", "é|😀", "$", "a.?", "^", "a|b|", "(?i)É", r"\Aa"]
    ),
    line=st.text("aÉé😀x b"),
)
def test_positions_count_code_points(pattern, line):
    expected: list[tuple[int, int]] = []
    for match in re.finditer(pattern, line, re.ASCII if "\\" in pattern else 0):
        # Python finds an empty match right behind another one; ripgrep and we do not.
        if match.group() or not expected or expected[-1][1] != match.end():
            expected.append(match.span())
    matcher = compile_matcher(pattern, regex=True, ignore_case=False)
    assert matcher.spans(line.encode()) == expected


def test_positions_are_capped():
    for query, regex in (("a", False), ("[a]", True), ("A", True)):
        matcher = compile_matcher(query, regex=regex, ignore_case=query == "A")
        assert len(matcher.spans(b"a" * (MAX_SPANS + 1))) == MAX_SPANS


@pytest.mark.parametrize(
    ("query", "line", "found"),
    [("btc", "BTC", True), ("ÉTÉ", "été", True), ("\u212a", "k", True), ("a.c", "ABC", False)],
)
def test_ignore_case_folds_unicode_and_keeps_plain_text_plain(query, line, found):
    matcher = compile_matcher(query, regex=False, ignore_case=True)
    assert matcher.matches(line.encode()) is found


@pytest.mark.parametrize(
    ("query", "regex"),
    [
        ("(", True),
        ("a{1001}", True),
        (r"(a)\1", True),
        ("(?=a)", True),
        ("x" * (16 * 1024 + 1), False),
        ("x" * 2**20, True),
        ("((((a{100}){100}){100}){100})", True),
        (r"(\pL{1,1000}|\pN{1,1000}){1}\PL{1000}" * 8, True),
        ("\ud800", False),
    ],
)
def test_bad_patterns_are_refused_without_noise(query, regex, capfd):
    with pytest.raises(BadPattern) as refused:
        compile_matcher(query, regex=regex, ignore_case=False)
    assert len(refused.value.detail) < 300
    assert capfd.readouterr() == ("", "")


def test_nested_quantifiers_stay_linear(capfd):
    matcher = compile_matcher("(((a+)+)+)+$", regex=True, ignore_case=False)
    assert not matcher.matches(b"a" * 250_000 + b"b")
    assert capfd.readouterr().err == ""


def test_equal_queries_are_equal_and_share_their_program():
    one = compile_matcher("a.", regex=True, ignore_case=False)
    two = compile_matcher("a.", regex=True, ignore_case=False)
    assert one is two
    other = compile_matcher("a.", regex=True, ignore_case=True)
    assert one != other
    assert len({one, two, other}) == 2
