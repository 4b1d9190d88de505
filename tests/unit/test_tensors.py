"""The canonical hash against its document and a second implementation; registry against a dict."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.block import Block, Bounds, line_ends
from context.damage import LostBlock
from context.index import Index
from context.items import Batch
from context.tensor_keys import Seen, seen_in
from context.tensor_registry import Registry
from context.tensors import MAX_DEPTH, Calculation, key_of, named_in, range_of
from server.agent.tensor_follower import read_on

DOC = (Path(__file__).resolve().parents[2] / "docs" / "tensor-hash.md").read_text()
VECTORS = re.findall(r"^\| `(\{.*\})` \| `([0-9a-f]{64})` \|$", DOC, re.MULTILINE)
HEAD = b"context-tensor/1\n"


def canonical(data: str | bytes) -> str | None:
    found = msgspec.json.decode(data, type=Calculation).canonical()
    return found.hex() if found else None


# --- the document -----------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_vectors_of_the_document(data: str, expected: str) -> None:
    assert canonical(data) == expected
    fields = {
        k: v for k, v in json.loads(data).items() if k in {"input_data", "operation", "result"}
    }
    assert hashlib.sha256(HEAD + encoded(fields)).hexdigest() == expected


def test_the_document_has_vectors_and_a_worked_example() -> None:
    assert len(VECTORS) > 20
    example = DOC.partition("Worked out for `")[2]
    data = example.partition("`")[0]
    dump = "".join(re.findall(r"^    ((?:[0-9A-F]{2} )+)", example, re.MULTILINE))
    assert hashlib.sha256(bytes.fromhex(dump)).hexdigest() == canonical(data)


def test_the_documents_program_for_arrays() -> None:
    program = DOC.partition("```python\n")[2].partition("```")[0]
    define, _, expression = program.strip().rpartition("\n\n")
    x, y = np.array([[1, 2], [3, -0.0]], np.float32), np.arange(3)
    names: dict[str, Any] = {"numpy": np, "struct": struct, "hashlib": hashlib, "x": x, "y": y}
    exec(define, names)
    sent = json.dumps({"input_data": x.tolist(), "result": y.tolist()})
    assert eval(expression, names) == canonical(sent)


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def shape(value: Any) -> tuple[int, ...] | None:
    """Shape of a tensor; () of a number that is a binary64."""
    if isinstance(value, bool) or not isinstance(value, int | float | list):
        return None
    if isinstance(value, float):
        return ()
    if isinstance(value, int):
        return () if abs(value) < 2**1023 and int(float(value)) == value else None
    shapes = {shape(each) for each in value}
    inner = shapes.pop() if len(shapes) == 1 else None
    return None if inner is None else (len(value), *inner)


def binary64(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(map(binary64, value))
    return struct.pack(">d", float(value) or 0.0)


def encoded(value: Any) -> bytes:
    """A second implementation, along the table of the document."""
    if value is None or value is True or value is False:
        return {None: b"N", True: b"T", False: b"F"}[value]
    found = shape(value)
    if found == ():
        return b"D" + binary64(value)
    if found is not None:
        return b"A" + bytes([len(found)]) + b"".join(map(u32, found)) + binary64(value)
    if isinstance(value, int):
        return b"I" + u32(len(str(value))) + str(value).encode()
    if isinstance(value, str):
        return b"S" + u32(len(value.encode())) + value.encode()
    if isinstance(value, list):
        return b"L" + u32(len(value)) + b"".join(map(encoded, value))
    fields = sorted((name.encode(), encoded(inner)) for name, inner in value.items())
    return b"O" + u32(len(fields)) + b"".join(u32(len(n)) + n + v for n, v in fields)


NUMBERS = (
    st.integers(-5, 5)
    | st.integers(2**53 - 3, 2**53 + 3)
    | st.integers(-(2**90), 2**90)
    | st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = NUMBERS | st.none() | st.booleans() | st.text(max_size=4)
VALUES = st.recursive(
    LEAVES | st.lists(NUMBERS, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.integers(1, 3).flatmap(lambda n: st.builds(lambda each: [each] * n, inner))
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
DATA = st.fixed_dictionaries(
    {"result": VALUES}, optional={"input_data": VALUES, "operation": VALUES}
)


@given(DATA)
def test_equals_a_second_implementation(data: dict[str, Any]) -> None:
    expected = hashlib.sha256(HEAD + encoded(data)).hexdigest()
    assert canonical(msgspec.json.encode(data)) == expected


def rewritten(value: Any) -> str:
    """The same value in other JSON: names backwards, blanks, escapes, numbers in other dress."""
    if isinstance(value, dict):
        fields = [f"{json.dumps(name)} : {rewritten(value[name])}" for name in reversed(value)]
        return "{ " + " , ".join(fields) + " }"
    if isinstance(value, list):
        return "[\n" + ",".join(map(rewritten, value)) + "]"
    if isinstance(value, float):
        return f"{int(value)}" if value.is_integer() else f"{value:.20e}"
    if type(value) is int and abs(value) < 2**53:
        return f"{value * 100}e-2" if value % 2 else f"{value}.000"
    text: str = json.dumps(value)
    return text


@given(DATA)
def test_does_not_depend_on_how_it_was_written(data: dict[str, Any]) -> None:
    told = {"calculation_id": "x", "confidence": 0.5, "context_meaning": "m", "host": "b"}
    assert canonical(rewritten(data | told)) == canonical(msgspec.json.encode(data))


@given(DATA, DATA)
def test_different_values_have_different_hashes(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = encoded(one) == encoded(two)
    assert (canonical(msgspec.json.encode(one)) == canonical(msgspec.json.encode(two))) is same


@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_has_no_hash_beyond_its_depth(brackets: str | tuple[str, str]) -> None:
    def nested(depth: int) -> str:
        return '{"result":' + brackets[0] * depth + "1" + brackets[1] * depth + "}"

    assert canonical(nested(MAX_DEPTH - 1)) is not None
    assert canonical(nested(MAX_DEPTH)) is None


# --- many lines at once ---------------------------------------------------------------------------

DECIMALS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
HALFWAY = st.builds(  # between two neighbours, and beside it
    lambda m, e, beside: str((2 * m + 1) * 2**e + beside),
    st.integers(2**52, 2**53 - 1),
    st.integers(0, 8),
    st.integers(-1, 1),
).map(lambda digits: f"{digits[:-3]}.{digits[-3:]}e3")


@settings(max_examples=500)
@given(st.lists((DECIMALS | HALFWAY).filter(lambda text: abs(float(text)) < 1e308), min_size=1))
def test_numbers_of_lines_are_the_nearest_binary64(numbers: list[str]) -> None:
    values = [*numbers, f"[{','.join(numbers)}]"]
    head = msgspec.json.encode({**ITEM, "data": {}})[:-3].decode()
    found = seen_of([f'{head}{{"result":{value}}}}}'.encode() for value in values])
    assert sorted(found.offsets.tolist()) == list(range(len(values)))
    for value, (key, _, _) in zip(values, sorted(listed(found), key=itemgetter(1)), strict=True):
        assert (canonical(f'{{"result":{value}}}') or "").startswith(key.hex())


TOLD = st.fixed_dictionaries(
    {"result": VALUES},
    optional={
        "input_data": VALUES | st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=1),
        "operation": VALUES,
        "calculation_id": LEAVES,
        "hash_value": st.none()
        | st.text(max_size=5)
        | st.text("0123456789abcdefABCDEF", max_size=70),
        "context_meaning": st.none() | st.text(max_size=5),
        "other": VALUES,
        'quo"ted': VALUES,
    },
)


@settings(max_examples=300)
@given(st.lists(TOLD, max_size=4), st.text(max_size=3))
def test_many_lines_have_the_keys_of_each(found: list[dict[str, Any]], source: str) -> None:
    lines = [msgspec.json.encode({**ITEM, "source": source, "data": data}) for data in found]
    together = seen_of(lines)
    expected = []
    for offset, data in enumerate(found):
        calculation = msgspec.convert(data, Calculation)
        own = calculation.canonical()
        meant = offset if data.get("context_meaning") else -1
        told = {key_of(text) for text in (own and own.hex(), data.get("hash_value")) if text}
        expected += [(key, offset, meant) for key in told]
    assert sorted(listed(together)) == sorted(expected)


@given(st.binary(max_size=80), st.integers(0, 200))
def test_lines_that_were_never_items_do_no_harm(noise: bytes, at: int) -> None:
    good = msgspec.json.encode({**ITEM, "data": {"input_data": [[1, 2]], "result": 0.5}})
    bad = (good[:at] + noise).replace(b"\n", b"")
    with_it = listed(seen_of([good, bad, good]))
    assert [each for each in with_it if each[1] != 1] == listed(seen_of([good, b"{}", good]))


def listed(found: Seen) -> list[tuple[bytes, int, int]]:
    columns = found.keys.tolist(), found.offsets.tolist(), found.meant.tolist()
    return [
        (high.to_bytes(8, "big") + low.to_bytes(8, "big"), offset, meant)
        for (high, low), offset, meant in zip(*columns, strict=True)
    ]


# --- keys -------------------------------------------------------------------------------------


@given(st.text("0123456789abcdefABCDEF", min_size=6, max_size=80), st.integers(6, 80))
def test_a_hash_lies_in_the_range_of_its_beginnings(text: str, size: int) -> None:
    span = range_of(text[:size])
    assert span is not None
    if len(text) >= 32 or size <= 30:
        assert span[0] <= key_of(text) <= span[1]
    assert key_of(text.upper()) == key_of(text.lower())


def test_keys_tell_hashes_apart() -> None:
    texts = ["abcdef", "abcdef0", "abcdef00", "abcdef" + "0" * 26, "abcde", "ABCDE", "0xabcdef", ""]
    assert len({key_of(text) for text in texts}) == len(texts)
    for text in ("abcde", "abcdeg", "abc def", ""):
        assert range_of(text) is None


def test_hashes_in_other_items_are_noticed() -> None:
    long = "ab" * 32
    item = {
        "type": "ai_decision",
        "data": {
            "reasoning": f"as of {long}, not {'c' * 31}",
            "of": ["short", {"x": 5, "y": "0aF"}],
        },
        "metadata": {"hash": "m" * 128, "none": "n" * 129},
    }
    found = named_in(msgspec.json.encode(item))
    assert {long, "short", "0aF", "m" * 128} <= set(found)
    assert not {"c" * 31, "n" * 129} & set(found)


# --- the registry -----------------------------------------------------------------------------


ITEM = {"type": "tensor_math", "source": "unknown", "timestamp": 1767225600.25}


def line(result: int, hash_value: str | None, meaning: str | None) -> bytes:
    data: dict[str, Any] = {"calculation_id": "c", "result": result}
    if hash_value is not None:
        data["hash_value"] = hash_value
    if meaning is not None:
        data["context_meaning"] = meaning
    return msgspec.json.encode({**ITEM, "data": data})


def seen_of(lines: Sequence[bytes], first: int = 0) -> Seen:
    text = b"".join(each + b"\n" for each in lines)
    ends = line_ends(text).astype(np.int64)
    return seen_in(text, np.append(0, ends + 1)[:-1], ends, np.arange(first, first + len(lines)))


CALCULATIONS = st.tuples(
    st.integers(0, 30),
    st.none() | st.sampled_from(["abcdef", "abcdef12", "x"]),
    st.none() | st.just("m"),
)


@settings(max_examples=50)
@given(st.lists(st.lists(CALCULATIONS, max_size=5), max_size=60))
def test_registry_equals_a_dict(steps: list[list[tuple[int, str | None, str | None]]]) -> None:
    registry, offset = Registry(), 0
    seen: dict[bytes, list[int]] = defaultdict(list)
    meant: dict[bytes, int] = {}
    for step in steps:
        lines, begun = [], offset
        for result, hash_value, meaning in step:
            lines.append(line(result, hash_value, meaning))
            own = canonical(f'{{"result":{result}}}')
            assert own is not None
            for key in {key_of(text) for text in (own, hash_value) if text}:
                seen[key].append(offset)
                if meaning:
                    meant[key] = offset
            offset += 1
        registry.fold(seen_of(lines, begun), offset)
        assert registry.folded == offset
    for key, offsets in seen.items():
        entry = registry.get(key)
        assert entry is not None
        assert (entry.seen, entry.first, entry.newest) == (len(offsets), offsets[0], offsets[-1])
        assert entry.meant == meant.get(key, -1)
    everything = registry.between(bytes(16), b"\xff" * 16, 10_000)
    assert [entry.key for entry in everything] == sorted(seen)
    assert registry.get(key_of("absent")) is None


def test_the_hashes_not_seen_for_long_are_dropped() -> None:
    registry, always = Registry(limit=1000), "f" * 64
    for offset in range(5000):
        sent = always if offset % 100 == 0 else None
        registry.fold(seen_of([line(offset, sent, None)], offset), offset)
        assert len(registry) <= 1001
    kept = registry.get(key_of(always))
    assert kept is not None
    assert kept.seen == 50
    entries = registry.between(bytes(16), b"\xff" * 16, 10_000)
    newest = sorted(entry.newest for entry in entries if entry.key != kept.key)
    assert newest[-1] == 4999
    assert all(b == a + 1 for a, b in pairwise(newest))


def test_keys_that_share_their_first_half_stay_apart() -> None:
    registry = Registry()
    texts = ["0123456789abcdef" + digit * 16 for digit in "9a1f05"]
    for offset, text in enumerate(texts * 20):
        registry.fold(seen_of([line(offset, text, None)], offset), offset)
    for text in texts:
        entry = registry.get(key_of(text))
        assert entry is not None
        assert entry.seen == 20
    assert len(registry.between(*range_of("0123456789abcdef") or (b"", b""), 100)) == len(texts)


def test_blocks_are_read_from_any_offset_and_what_is_lost_is_passed_over() -> None:
    def lines(first: int) -> list[bytes]:
        return [
            line(n, f"{n:08x}", None)
            if n % 3 == 0
            else msgspec.json.encode({**ITEM, "type": "note", "data": {"pad": "x" * 20_000}})
            for n in range(first, first + 40)
        ]

    batches = [
        Batch(first, 40, 1.0, 1, b"".join(each + b"\n" for each in lines(first)))
        for first in range(0, 240, 40)
    ]

    def load(bounds: Bounds) -> Block:
        if bounds.first_offset == 0:
            raise LostBlock("its block is damaged", bounds)
        first, last = bounds.first_offset, bounds.last_offset
        return Block.of([each for each in batches if first <= each.first_offset <= last])

    index = Index(load, 0)
    for batch in batches:
        index.apply(batch)
    snapshot = index.snapshot()
    kept = snapshot.closed[1].first_offset
    assert len(snapshot.closed) > 2
    for after in (-1, kept - 2, kept, kept + 5, 238, 239):
        found, reached = read_on(snapshot, after)
        expected = [n for n in range(max(after + 1, kept), 240) if n % 3 == 0]
        assert sorted(found.offsets.tolist()) == sorted(2 * expected)
        assert reached == 239
    assert read_on(snapshot, kept, 1)[1] == snapshot.closed[1].last_offset
