"""What every matching line must contain, told from the query alone.

This is what lets a search leave out a block, and a standing query leave out a batch: an AND of ORs
of literals, necessary and rarely sufficient. `buy.*volume` needs `buy` and `volume`;
`(foo|bar)baz` needs `foobaz` or `barbaz`. A wrong literal would hide items, so whatever is not
understood requires nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from context.pattern import Chars, Choice, Node, Pattern, Repeat, Sequence, parse

MAX_NEEDS = 16
MAX_OPTIONS = 16  # of one need
MAX_BYTES = 64  # of one literal; a longer one becomes several
MAX_STEPS = 4000  # parts looked at; repetitions of repetitions multiply
_COPIES = 8  # of a repeated part that are written out
# They fold to k and s, and no other character outside ASCII folds into it.
FOLD_INTO_ASCII = ("\u212a".encode(), "\u017f".encode())

Need = tuple[bytes, ...]  # one of these; none is empty


@dataclass(frozen=True, slots=True)
class Formula:
    """Literals that a line must contain to match: one of every need.

    With `folds` they are in ASCII lower case and speak of the line in ASCII lower case, and only
    of lines without `FOLD_INTO_ASCII`: what holds one of those two may match all the same.
    """

    needs: tuple[Need, ...] = ()
    folds: bool = False

    def holds(self, line: bytes) -> bool:
        """Whether the line, or any text of several lines, may match."""
        if self.folds:
            if any(mark in line for mark in FOLD_INTO_ASCII):
                return True
            line = line.lower()
        return all(any(option in line for option in need) for need in self.needs)

    def best(self) -> Need:
        """The need whose shortest literal is longest; empty where nothing is required."""
        return max(self.needs, key=_worth, default=())


def required(query: str, *, regex: bool, ignore_case: bool) -> Formula:
    """What the lines matching a query contain; RE2 has accepted the query before."""
    pattern = parse(query, regex=regex, ignore_case=ignore_case)
    return of_pattern(pattern) if pattern else Formula()


def of_pattern(pattern: Pattern) -> Formula:
    """As `required`, of a query that is parsed already."""
    budget = [MAX_STEPS]
    try:
        writer = _Writer(pattern.folds, budget)
        writer.write(pattern.root)
    except _TooMuch:
        return Formula((), pattern.folds)
    return Formula(_essential(writer.close()), pattern.folds)


class _TooMuch(Exception):
    """The pattern is too large to be worth it."""


class _Writer:
    """Goes through a pattern from left to right and holds the texts that may stand last."""

    def __init__(self, folds: bool, budget: list[int]) -> None:
        self._folds, self._budget = folds, budget
        self._last: frozenset[bytes] = frozenset((b"",))
        self._needs: list[Need] = []
        self._whole = True  # `_last` is all that was written

    def close(self) -> list[Need]:
        """Everything found; the writer is done."""
        self._cut()
        return self._needs

    def write(self, node: Node) -> None:
        """Add what follows."""
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise _TooMuch
        if isinstance(node, Chars):
            self._chars(node)
        elif isinstance(node, Sequence):
            for part in node.parts:
                self.write(part)
        elif isinstance(node, Choice):
            self._choice(node)
        else:
            self._repeat(node)

    def _add(self, options: frozenset[bytes]) -> None:
        """Whatever stood last, followed by one of these."""
        longer = frozenset(last + option for last in self._last for option in options)
        if len(longer) > MAX_OPTIONS or max(map(len, longer)) > MAX_BYTES:
            self._cut()
            longer = options
        self._last = longer

    def _cut(self) -> None:
        """What follows does not directly follow what stood last."""
        if b"" not in self._last:
            self._needs.append(tuple(sorted(self._last)))
        self._last, self._whole = frozenset((b"",)), False

    def _chars(self, chars: Chars) -> None:
        members = chars.members(MAX_OPTIONS)
        if members is None:
            self._cut()
            return
        options = {char.encode() for char in members}
        if self._folds:
            options = {option.lower() for option in options}
            for mark, letter in zip(FOLD_INTO_ASCII, (b"k", b"s"), strict=True):
                if letter in options:
                    options.discard(mark)
        self._add(frozenset(options))

    def _choice(self, choice: Choice) -> None:
        branches = []
        for node in choice.branches:
            branch = _Writer(self._folds, self._budget)
            branch.write(node)
            branches.append(branch)
        whole = frozenset[bytes]().union(*(branch._last for branch in branches))
        if all(branch._whole for branch in branches) and len(whole) <= MAX_OPTIONS:
            self._add(whole)
            return
        self._cut()
        best = [max(branch.close(), key=_worth, default=()) for branch in branches]
        options = frozenset(option for need in best for option in need)
        if all(best) and len(options) <= MAX_OPTIONS:
            self._needs.append(tuple(sorted(options)))

    def _repeat(self, repeat: Repeat) -> None:
        if repeat.least == 0:
            if repeat.most == 1:
                self._choice(Choice((repeat.body, Sequence(()))))
            elif repeat.most != 0:
                self._cut()
            return
        copies = min(repeat.least, _COPIES)
        for _ in range(copies):
            self.write(repeat.body)
        if repeat.most != copies:
            self._cut()
            self.write(repeat.body)  # the last copy, which what follows does follow


def _worth(need: Need) -> tuple[int, int]:
    """Longer is rarer, and so is one of fewer."""
    return min(map(len, need), default=0), -len(need)


def _essential(needs: list[Need]) -> tuple[Need, ...]:
    """The needs worth keeping, in order: few, and none that follows from another."""
    unique = list(dict.fromkeys(map(_shortest, needs)))
    kept = sorted(unique, key=_worth, reverse=True)[:MAX_NEEDS]
    return tuple(
        need for need in unique if need in kept and not any(_implies(one, need) for one in kept)
    )


def _shortest(need: Need) -> Need:
    """Without the literals that hold another one of the same need."""
    return tuple(one for one in need if not any(other in one for other in need if other is not one))


def _implies(one: Need, other: Need) -> bool:
    """Whether a line that fulfils `one` surely fulfils `other`, another need."""
    return one != other and all(any(short in long for short in other) for long in one)
