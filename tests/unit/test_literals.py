"""A required literal that a match may lack would hide items: it must hold for every pattern."""

from itertools import product

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from context.errors import BadPattern
from context.literals import FOLD_INTO_ASCII, MAX_BYTES, MAX_NEEDS, MAX_OPTIONS, required
from context.query import compile_matcher

# A pattern and what it may match. Combining both ways makes matches likely.
ATOMS = [
    *[(text, [text]) for text in ("a", "kS", "buy", "é", "ß", "😀", '"x":', "Volume", "0")],
    *[(anchor, [""]) for anchor in ("^", "$", "\\b", "\\B", "(?-m:^)", "\\A", "\\z", "")],
    *[
        ("[0-9]", ["3"]),
        ("[a-c]", ["a", "c"]),
        ("[^b]", ["a", "é"]),
        ("[^é]", ["a", "ü"]),
        (".", ["é"]),
    ],
    *[("\\d", ["7"]), ("\\D", ["é"]), ("\\w", ["k"]), ("\\W", ["ſ", "-"]), ("\\s", [" "])],
    *[("[^\\W]", ["s"]), ("[^\\d\\pL]", ["-"]), ("\\pL", ["é"]), ("\\PL", ["1"])],
    *[("\\p{Greek}", ["α"]), ("[[:alpha:]-]", ["-", "z"]), ("[[:^alpha:]]", ["1", "é"])],
    *[("[]a]", ["]", "a"]), ("[^]k]", ["s", "\u212a"]), ("[k\u017f]", ["k", "\u017f"])],
    *[("\\x{e9}", ["é"]), ("\\x4b", ["K"]), ("\\113", ["K"]), ("\\Qa.b|\\E", ["a.b|"])],
    *[("\\.", ["."]), ("{,3}", ["{,3}"]), ("\\n", [""]), ("\\C", ["a"]), ("(?i)", [""])],
    *[("(?i)k", ["\u212a"]), ("(?i)s", ["\u017f"]), ("(?i:É)", ["é"]), ("(?s)", [""])],
    *[("\u212a", ["\u212a"]), ("[\u017f-\u0181]", ["\u017f", "\u0180"])],
]


def _then(parts):
    return "".join(p for p, _ in parts), ["".join(s) for s in product(*(m[:3] for _, m in parts))]


def _either(parts):
    return "|".join(p for p, _ in parts), [one for _, matched in parts for one in matched]


def _times(part, operator, count):
    return f"(?:{part[0]}){operator}", [one * count for one in part[1]]


def _folded(part, form):
    pattern, matched = part
    odd = [one.replace("k", "\u212a").replace("S", "\u017f") for one in matched]
    return form.format(pattern), [case for one in matched for case in (one, one.swapcase())] + odd


OPERATORS = [("*", 0), ("*", 3), ("+", 1), ("+", 2), ("?", 0), ("?", 1), ("*?", 2), ("{2}", 2)]
OPERATORS += [("{2,}", 3), ("{1,3}", 2), ("{0}", 0), ("{0,2}", 1), ("{9,12}", 10), ("{0,9}", 9)]
FORMS = ["(?i:{})", "(?i){}", "({})", "(?P<n>{})", "(?i:(?-i:b)?{0})|(?i-s:{0})"]
PATTERNS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(_then),
        st.lists(inner, min_size=2, max_size=3).map(_either),
        st.tuples(inner, st.sampled_from(OPERATORS)).map(lambda pair: _times(pair[0], *pair[1])),
        st.builds(_folded, inner, st.sampled_from(FORMS)),
    ),
    max_leaves=10,
)
JUNK = st.text('akKsS\u212a\u017fbé1 "x:-', max_size=4)


@st.composite
def cases(draw):
    """A pattern RE2 takes, and a line that it may match."""
    pattern, matched = draw(PATTERNS)
    line = draw(JUNK) + draw(st.sampled_from(matched)) + draw(JUNK)
    return pattern, line.replace("\n", " ")


@settings(max_examples=2000, deadline=None)
@given(case=cases(), ignore_case=st.booleans(), regex=st.integers(0, 4).map(bool))
def test_what_matches_holds_what_is_required(case, ignore_case, regex):
    query, line = case
    try:
        matcher = compile_matcher(query, regex=regex, ignore_case=ignore_case)
    except BadPattern:
        return
    formula = required(query, regex=regex, ignore_case=ignore_case)
    assert len(formula.needs) <= MAX_NEEDS
    for need in formula.needs:
        assert 0 < len(need) <= MAX_OPTIONS
        assert all(0 < len(option) <= MAX_BYTES for option in need)
        assert not formula.folds or all(option == option.lower() for option in need)
    matched = matcher.matches(line.encode())
    event(f"matched: {matched}, required: {bool(formula.needs)}")
    assert formula.holds(line.encode()) or not matched


DIGITS = [b"%d" % digit for digit in range(10)]


@pytest.mark.parametrize(
    ("query", "needs"),
    [
        ("buy.*volume", [[b"buy"], [b"volume"]]),
        ('"confidence":0\\.9[0-9]', [[b'"confidence":0.9' + digit for digit in DIGITS]]),
        ("0\\.9[0-9][0-9]", [[b"0.9" + digit for digit in DIGITS]]),
        ("(foo|bar)baz+", [[b"barbaz", b"foobaz"]]),
        ("a?b*c", [[b"c"]]),
        ("ab?c", [[b"abc", b"ac"]]),
        ("bz+q", [[b"bz"], [b"zq"]]),
        ("a{3}b{2,5}c", [[b"aaabb"], [b"bc"]]),
        ("x(foo.*|bar)y", [[b"x"], [b"bar", b"foo"], [b"y"]]),
        ("cat.|dog.|cow", [[b"cat", b"cow", b"dog"]]),
        ("cat.|.", []),
        ("cat|", []),
        ("^\\bfoo\\b$", [[b"foo"]]),
        (
            "(?P<verb>[Bb]uy)\\s",
            [[b + s for b in (b"Buy", b"buy") for s in (b"\t", b"\f", b"\r", b" ")]],
        ),
        ("\\Qa.b\\E+", [[b"a.b"]]),
        ("[^a]bc", [[b"bc"]]),
        ("\\pLbc", [[b"bc"]]),
        ("Straße", [["Straße".encode()]]),
        ("a\\Cb", []),
        ("a\\nb", []),
        ("(" * 200 + "a" + ")" * 200, []),
        ("", []),
    ],
)
def test_examples(query, needs):
    formula = required(query, regex=True, ignore_case=False)
    assert [sorted(need) for need in formula.needs] == [sorted(need) for need in needs]
    assert not formula.folds


@pytest.mark.parametrize(
    ("query", "regex", "needs"),
    [
        ("(?i)Straße", True, [(b"stra",), (b"e",)]),
        ("a(?i:B)C", True, [(b"abc",)]),
        ("(?i)Risk.*K", True, [(b"risk",)]),
        ("Risk.K", False, [(b"risk.k",)]),
        ("É", False, []),
    ],
)
def test_examples_that_ignore_case(query, regex, needs):
    formula = required(query, regex=regex, ignore_case=not regex)
    assert formula.folds
    assert list(formula.needs) == needs


def test_two_characters_fold_into_ascii():
    formula = required("(?i)risk", regex=True, ignore_case=False)
    assert formula.holds("RI\u017f\u212a".encode())
    assert not formula.holds(b"RIS")
    assert [mark.decode() for mark in FOLD_INTO_ASCII] == ["\u212a", "\u017f"]


def test_a_long_text_is_cut_and_a_large_pattern_given_up():
    formula = required("".join(map(chr, range(32, 127))) + "!!!!!", regex=False, ignore_case=False)
    assert [len(need[0]) for need in formula.needs] == [64, 36]
    assert not required(
        "(((((ab){9}c){9}d){9}e){1}f){1}g.*h" * 60, regex=True, ignore_case=False
    ).needs
    assert len(required("ab.*" * 300, regex=True, ignore_case=False).needs) == 1
    many = ".*".join(f"n{i:04d}" for i in range(300))
    assert len(required(many, regex=True, ignore_case=False).needs) == MAX_NEEDS
