"""Many standing queries as one matcher: a batch of lines is read once, however many wait for it.

The queries lie in a few hyperscan databases, the larger the older, like the levels of an LSM tree.
A new one is matched on its own (RE2) from the moment it is added until the next small database
holds it. Levels of like size are merged by and by, so that each query is compiled and each batch
scanned a few times only. A removed one is ignored at once and left out of the next merge.

Hyperscan proposes (line, query); RE2 decides. What is compiled for a pattern accepts at least what
RE2 accepts (`context/pattern.py`), in bytes, and goes on to the end of the line: one report a line.
Plain text in its own case needs no second opinion.

Nothing here is thread-safe but `Compilation.run`, which takes seconds for ten thousand patterns,
releases the GIL, and is to run elsewhere: `due` gives what to run, `install` takes what came of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import hyperscan
import numpy as np
from numpy.typing import NDArray

from context.errors import RateLimited
from context.literals import of_pattern
from context.pattern import parse
from context.prefilter import exactly, superset
from context.query import Matcher, compile_matcher

MAX_QUERIES = 50_000
MAX_ALONE = 32  # queries that no literal tells apart: each costs a scan of its own
QUICK = 8192  # cost that compiles in about 0.1 s
_PATTERN_COST = 32  # of compiling a pattern, beside plain text
_RATIO = 4  # of a level to the next smaller one, at least
_MIN_LITERAL = 2
_FEW = 8  # a line alone costs this much more than in a block

Key = tuple[str, bool, bool]  # query, regex, ignore_case
Expressions = Sequence[tuple[int, bytes]]
Lines = NDArray[np.intp]


@dataclass(slots=True, eq=False)
class _Query:
    """A query that somebody waits for."""

    key: Key
    matcher: Matcher
    expression: bytes | None  # for hyperscan; None: matched alone
    exact: bool  # what hyperscan finds is what RE2 finds
    waiting: int = 1
    level: Level | None = None

    @property
    def cost(self) -> int:
        return 1 if self.exact else _PATTERN_COST


@dataclass(slots=True, eq=False)
class Level:
    """One database. It may hold queries that are gone; `cost` is that of the others."""

    database: hyperscan.Database | None  # None: it has nothing to scan for
    numbers: tuple[int, ...]
    made: int = 0  # the cost when it was new
    cost: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Compilation:
    """Work for another thread: the database of some queries."""

    expressions: Expressions
    quick: bool
    replaces: tuple[Level, ...] = ()

    def run(self) -> Built:
        """Compile; takes from a millisecond to seconds, without the GIL."""
        database, refused = _compile(self.expressions)
        return Built(self, database, refused)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """What came of a compilation; `refused` are queries that hyperscan does not take."""

    compilation: Compilation
    database: hyperscan.Database | None
    refused: tuple[int, ...]


class StandingSet:
    """All standing queries of a process."""

    def __init__(self) -> None:
        self._queries: dict[int, _Query] = {}
        self._numbers: dict[Key, int] = {}
        self._alone: dict[int, _Query] = {}
        self._fresh: dict[int, _Query] = {}  # matched alone until they are compiled
        self.levels: list[Level] = []  # from large to small; for figures and tests
        self._running: list[Compilation] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._queries)

    def add(self, query: str, *, regex: bool, ignore_case: bool) -> int:
        """Wait for the lines of a query from the next `match` on; equal queries share their id.

        Raises
        ------
        BadPattern
            As `compile_matcher`.
        RateLimited
            There are `MAX_QUERIES`, or `MAX_ALONE` that no literal tells apart.
        """
        key = (query, regex, ignore_case)
        known = self._numbers.get(key)
        if known is not None:
            self._queries[known].waiting += 1
            return known
        wanted = _query(key)
        if len(self._queries) >= MAX_QUERIES:
            raise RateLimited(f"{MAX_QUERIES} standing queries are running already")
        if wanted.expression is None and len(self._alone) >= MAX_ALONE:
            raise RateLimited(
                f"{MAX_ALONE} standing queries without a literal are running already; add some "
                f"text that every wanted line holds to {query[:80]!r}"
            )
        number, self._next = self._next, self._next + 1
        self._numbers[key], self._queries[number] = number, wanted
        (self._alone if wanted.expression is None else self._fresh)[number] = wanted
        return number

    def remove(self, number: int) -> None:
        """Take one `add` back; the id is void once each is. Raises KeyError for an unknown id."""
        query = self._queries[number]
        query.waiting -= 1
        if query.waiting:
            return
        del self._queries[number], self._numbers[query.key]
        self._alone.pop(number, None)
        self._fresh.pop(number, None)
        if query.level:
            query.level.cost -= query.cost

    def match(self, text: bytes, ends: NDArray[np.int32]) -> dict[int, Lines]:
        """Ascending indices of the matching lines by id, of queries that match any.

        Parameters
        ----------
        text : lines, each ended by a newline
        ends : (lines,) where each line ends, before its newline
        """
        found: dict[int, Lines] = {}
        for number, query in (*self._alone.items(), *self._fresh.items()):
            lines = query.matcher.hits(text, ends, 0, len(ends))
            if len(lines):
                found[number] = lines
        numbers, offsets = self._scan(text)
        if numbers:
            for number, lines in _by_query(numbers, offsets, ends):
                query = self._queries[number]
                decided = lines if query.exact else _decide(query.matcher, text, ends, lines)
                if len(decided):
                    found[number] = decided
        return found

    def _scan(self, text: bytes) -> tuple[list[int], list[int]]:
        """What the databases propose: query and end of its match, side by side."""
        numbers: list[int] = []
        offsets: list[int] = []
        queries, note_number, note_offset = self._queries, numbers.append, offsets.append

        def note(number: int, start: int, end: int, flags: int, context: object) -> None:
            if number in queries:
                note_number(number)
                note_offset(end)

        for level in self.levels:
            if level.database is not None:
                level.database.scan(text, match_event_handler=note)
        return numbers, offsets

    def due(self) -> Compilation | None:
        """The next thing to compile, if anything; ask again after every `add` and `install`.

        A small and a large compilation may run at a time, so that no new query waits for a large
        one.
        """
        running = {compilation.quick for compilation in self._running}
        found = None
        if self._fresh and True not in running:
            found = self._small()
        if not found and False not in running:
            found = self._large()
        if found:
            self._running.append(found)
        return found

    def _small(self) -> Compilation:
        """The fresh queries, with small levels of late as long as it stays quick."""
        cost, numbers = 0, list[int]()
        for number, query in self._fresh.items():
            cost += query.cost
            if numbers and cost > QUICK:
                break
            numbers.append(number)
        merged = self._mergeable(cost, QUICK - cost)
        return Compilation(self._expressions(numbers, merged), True, merged)

    def _large(self) -> Compilation | None:
        """Levels of like size together, or one that holds mostly queries that are gone."""
        self.levels = [level for level in self.levels if level.cost or self._is_taken(level)]
        merged = self._mergeable(0, None)
        if len(merged) < 2:
            merged = tuple(level for level in self.levels if self._is_stale(level))[:1]
        return Compilation(self._expressions((), merged), False, merged) if merged else None

    def _mergeable(self, cost: int, most: int | None) -> tuple[Level, ...]:
        """Levels from the smallest on, each not much larger than all before it and `cost`."""
        found: list[Level] = []
        for level in reversed(self.levels):
            if self._is_taken(level):
                continue
            too_large = cost and level.cost > _RATIO * cost
            if too_large or (most is not None and level.cost > most):
                break
            found.append(level)
            cost += level.cost
            most = most - level.cost if most is not None else None
        return tuple(found)

    def _is_taken(self, level: Level) -> bool:
        return any(level in compilation.replaces for compilation in self._running)

    def _is_stale(self, level: Level) -> bool:
        return level.cost * 2 < level.made and not self._is_taken(level)

    def _expressions(self, fresh: Sequence[int], levels: Sequence[Level]) -> Expressions:
        numbers = [*fresh, *(number for level in levels for number in level.numbers)]
        queries = [(number, self._queries.get(number)) for number in numbers]
        return [(n, query.expression) for n, query in queries if query and query.expression]

    def install(self, built: Built) -> None:
        """Use what a compilation gave in place of what it was made of."""
        done = built.compilation
        self._running.remove(done)
        level = Level(built.database, tuple(number for number, _ in done.expressions))
        for number in level.numbers:
            self._fresh.pop(number, None)
            query = self._queries.get(number)
            if query and number in built.refused:
                self._alone[number], query.expression = query, None
            elif query:
                query.level = level
                level.cost += query.cost
        level.made = level.cost
        self.levels = [old for old in self.levels if old not in done.replaces]
        self.levels.append(level)
        self.levels.sort(key=lambda level: -level.cost)


def _query(key: Key) -> _Query:
    query, regex, ignore_case = key
    matcher = compile_matcher(query, regex=regex, ignore_case=ignore_case)
    pattern = parse(query, regex=regex, ignore_case=ignore_case)
    text = pattern.text() if pattern else ""
    if text:
        return _Query(key, matcher, exactly(text.encode()), exact=True)
    formula = of_pattern(pattern) if pattern else None
    if not pattern or not formula or min(map(len, formula.best()), default=0) < _MIN_LITERAL:
        return _Query(key, matcher, None, exact=False)
    return _Query(key, matcher, superset(pattern, formula), exact=False)


def _compile(expressions: Expressions) -> tuple[hyperscan.Database | None, tuple[int, ...]]:
    """A database, and which queries had to stay out of it."""
    try:
        return _database(expressions), ()
    except hyperscan.error:
        refused = _refused(expressions)
        taken = [pair for pair in expressions if pair[0] not in refused]
        return (_database(taken) if taken else None), refused


def _refused(expressions: Expressions) -> tuple[int, ...]:
    """Queries that do not compile, each on its own."""
    try:
        _database(expressions)
    except hyperscan.error:
        if len(expressions) == 1:
            return (expressions[0][0],)
        half = len(expressions) // 2
        return _refused(expressions[:half]) + _refused(expressions[half:])
    return ()


def _database(expressions: Expressions) -> hyperscan.Database:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    numbers, written = zip(*expressions, strict=True)
    database.compile(expressions=written, ids=numbers, flags=0)
    return database


def _by_query(
    numbers: list[int], offsets: list[int], ends: NDArray[np.int32]
) -> Iterator[tuple[int, Lines]]:
    """The lines that were proposed for each query, ascending, once each."""
    lines = np.searchsorted(ends, np.array(offsets, dtype=np.int32) - 1)
    pairs = np.unique(np.array(numbers, dtype=np.int64) * len(ends) + lines)
    owners, lines = np.divmod(pairs, len(ends))
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(pairs)], strict=True):
        yield int(owners[start]), lines[start:stop]


def _decide(matcher: Matcher, text: bytes, ends: NDArray[np.int32], lines: Lines) -> Lines:
    """Those of the proposed lines that match."""
    if len(lines) * _FEW >= len(ends):
        return matcher.hits(text, ends, 0, len(ends))
    starts = np.where(lines > 0, ends[lines - 1] + 1, 0).tolist()
    stops = ends[lines].tolist()
    return lines[[matcher.matches(text[a:b]) for a, b in zip(starts, stops, strict=True)]]
