"""The same lines, the same queries: this search, ripgrep and grep must select the same lines."""

import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from context.index import Index
from context.ingest import parse_ndjson
from context.items import Batch
from context.request import parse_search
from context.search import read_forward, search
from context.types import Types

SHARED = Path(__file__).resolve().parents[2] / "../shared"
NORMALIZED = sorted((SHARED / "data/normalized").glob("*.ndjson.gz"))
RG, GREP = shutil.which("rg"), shutil.which("grep")
QUERIES = 400
LIMIT = 500
OFFSET = re.compile(rb'"offset":(\d+)')
UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}
WORDS = [
    "größer",
    "naïve",
    "Ёлка",
    "価格",
    "€5",
    "😀",
    "buy",
    "SELL",
    "a.b*c",
    "x|y",
    "(z)",
    "$1",
    "\\d",
]


@dataclass(frozen=True)
class Query:
    text: str
    regex: bool = False
    ignore_case: bool = False
    invert: bool = False

    def body(self) -> dict[str, object]:
        options = {"regex": self.regex, "ignore_case": self.ignore_case, "invert": self.invert}
        return {"query": self.text, "limit": LIMIT, "deadline_ms": 60_000, **options}

    def arguments(self) -> list[str]:
        flags = [name for name, on in (("-i", self.ignore_case), ("-v", self.invert)) if on]
        return [*flags, "-e", self.text]


def real_lines() -> bytes:
    """4,000 lines from the middle of each recorded file: quotes, trades, candles, health."""
    lines: list[bytes] = []
    for path in NORMALIZED:
        with gzip.open(path) as file:
            lines += islice(file, 1000, 5000)
    return b"".join(lines)


def mixed_lines(count: int, chance: random.Random) -> bytes:
    """Decisions and notes with text beyond ASCII, escapes, and characters that patterns use."""
    lines = []
    for i in range(count):
        words = " ".join(chance.choices(WORDS, k=chance.randrange(1, 6)))
        data = {
            "decision_id": f"d-{i}",
            "decision": chance.choice(["buy", "Hold"]),
            "reasoning": words,
        }
        data["confidence"] = round(chance.random(), chance.randrange(1, 8))
        lines.append(
            json.dumps({"type": "ai_decision", "source": "agent", "data": data | {"t": "\t\n"}})
        )
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(path of the lines, the lines, an index of them)."""
    parts = [mixed_lines(3000, random.Random(3)), real_lines()]
    if (SHARED / "load/corpus.py").exists():
        sys.path.insert(0, str(SHARED / "load"))
        try:
            items = __import__("corpus").items(8000)
        finally:
            sys.path.pop(0)
        parts.append("\n".join(map(json.dumps, items)).encode())
    if not NORMALIZED:
        parts.append(mixed_lines(20_000, random.Random(4)))
    blocks, offset, text = {}, 0, b""
    index = Index(lambda bounds: blocks[bounds.first_offset])
    for part in parts:
        lines = parse_ndjson(part, Types(), now=1.0).text
        rows = lines.split(b"\n")[:-1]
        for start in range(0, len(rows), 700):
            chunk = rows[start : start + 700]
            index.apply(Batch(offset, len(chunk), 1.0, 1, b"".join(x + b"\n" for x in chunk)))
            offset += len(chunk)
        text += lines
    path = tmp_path_factory.mktemp("grep") / "lines.ndjson"
    path.write_bytes(text)
    return path, text.decode().split("\n")[:-1], index.snapshot()


def plain(lines: list[str], chance: random.Random) -> str:
    line = chance.choice(lines)
    start = chance.randrange(len(line))
    return line[start : start + chance.choice([1, 2, 3, 5, 8, 13, 30, 80])]


def pattern(lines: list[str], chance: random.Random) -> str:
    """A pattern in the part of the syntax that RE2, ripgrep and POSIX grep all have."""
    cut = plain(lines, chance)[:12]
    quoted = re.sub(r"([\\.*+?()|\[\]{}^$])", r"\\\1", cut)
    other = re.sub(r"([\\.*+?()|\[\]{}^$])", r"\\\1", plain(lines, chance)[:6])
    shapes = [
        re.sub("[0-9]", "[0-9]", quoted),
        re.sub("[0-9]", ".", quoted),
        f"{quoted}|{other}",
        f"{quoted}.*{other}",
        f"({quoted}|{other})+",
        f"^.{{{chance.randrange(5, 40)}}}{quoted}",
        f"{quoted}[^,]*,",
        f"{other}}}*$",
        f"(^|,){other}",
        f"{quoted}?",
        f"[{chance.choice('ab')}-f]{{{chance.randrange(2, 5)},}}",
        f"[é価😀{chance.choice('xyz')}]+{chance.choice(['', ' ', 'n'])}",
        f"[0-9]+{chance.choice(['e', ',', 'T', '00'])}",
        f"^[^{chance.choice('0123zq')}]*$",
    ]
    return chance.choice(shapes).replace("}}*$", "\\}*$")


def queries(lines: list[str]) -> list[Query]:
    chance = random.Random(20240808)
    found = []
    for i in range(QUERIES):
        regex = i % 2 == 1
        text = (pattern if regex else plain)(lines, chance)
        ignore_case = chance.random() < 0.3
        if ignore_case and chance.random() < 0.5:
            text = text.swapcase() if not regex else text
        found.append(Query(text, regex, ignore_case, chance.random() < 0.2))
    return found


def check(snapshot, query: Query, expected: list[int]) -> None:
    """A stream's forward reading gives all lines, a search the newest and the count."""
    request = parse_search(query.body())
    items, _ = read_forward(
        snapshot,
        -1,
        request.selection(),
        max_items=10**6,
        max_bytes=1 << 30,
        max_scan_bytes=1 << 30,
    )
    assert [offset + 1 for offset, _, _ in items] == expected, query
    answer = search(snapshot, request, epoch="e", clock=time.monotonic)
    newest = [int(OFFSET.search(bytes(raw))[1]) + 1 for raw in answer["items"]]
    assert newest == expected[::-1][:LIMIT], query
    counting = parse_search(query.body() | {"count_only": True})
    assert search(snapshot, counting, epoch="e", clock=time.monotonic)["count"] == len(expected)


def theirs(command: list[str], query: Query, path: Path) -> list[int]:
    run = subprocess.run(
        [*command, *query.arguments(), str(path)], capture_output=True, env=UTF8, check=False
    )
    assert run.returncode in (0, 1), run.stderr.decode()
    return [int(line.split(b":", 1)[0]) for line in run.stdout.split(b"\n")[:-1]]


@pytest.mark.skipif(RG is None, reason="ripgrep (rg) is not installed")
def test_ripgrep_selects_the_same_lines(corpus):
    path, lines, snapshot = corpus
    for query in queries(lines):
        mode = [] if query.regex else ["-F"]
        command = [str(RG), "-n", "--no-config", "--color=never", "--max-columns=1", *mode]
        check(snapshot, query, theirs(command, query, path))


@pytest.mark.skipif(GREP is None, reason="grep is not installed")
def test_grep_selects_the_same_lines(corpus):
    path, lines, snapshot = corpus
    for query in queries(lines)[::3]:
        command = [str(GREP), "-n", "--color=never", "-E" if query.regex else "-F"]
        check(snapshot, query, theirs(command, query, path))


def test_the_lines_searched_are_enough(corpus):
    _, lines, snapshot = corpus
    assert len(lines) >= 20_000
    assert len(snapshot) > 5
