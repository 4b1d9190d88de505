"""Decompression of bodies: whole or not at all, bounded in size and in time."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from context.errors import BodyTooLarge, InvalidJson, UnsupportedMedia
from server.decompression import decompress

LIMIT = 1 << 20
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
}
encodings = st.sampled_from(sorted(ENCODERS))


@given(encodings, st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_parts_come_back_joined(encoding: str, parts: list[bytes]) -> None:
    body = b"".join(map(ENCODERS[encoding], parts))
    assert decompress(body, encoding, limit=LIMIT) == b"".join(parts)


@given(encodings, st.binary(max_size=3000), st.data())
def test_whatever_was_cut_is_refused(encoding: str, plain: bytes, data: st.DataObject) -> None:
    body = ENCODERS[encoding](plain)
    cut = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(InvalidJson, match="ends too early"):
        decompress(body[:cut], encoding, limit=LIMIT)


def test_a_frame_without_its_end_is_refused() -> None:
    squeeze = zstandard.ZstdCompressor().compressobj()
    body = squeeze.compress(b"whole line\n")
    body += squeeze.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(InvalidJson, match="ends too early"):
        decompress(body, "zstd", limit=LIMIT)


@pytest.mark.parametrize("encoding", ENCODERS)
def test_the_limit_counts_what_comes_out(encoding: str) -> None:
    encode = ENCODERS[encoding]
    assert decompress(encode(b" " * LIMIT), encoding, limit=LIMIT) == b" " * LIMIT
    for bomb in (encode(b" " * (LIMIT + 1)), encode(b" " * (64 << 20)), encode(b" " * 1000) * 2000):
        with pytest.raises(BodyTooLarge):
            decompress(bomb, encoding, limit=LIMIT)


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_million_empty_parts_are_refused_soon(encoding: str) -> None:
    body = ENCODERS[encoding](b"") * 1_000_000
    started = time.perf_counter()
    with pytest.raises(InvalidJson, match="more than 10000 parts"):
        decompress(body, encoding, limit=LIMIT)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("encoding", ENCODERS)
def test_damage_is_refused(encoding: str) -> None:
    whole = ENCODERS[encoding](b"hello")
    for body in (b"plain text", whole + b"junk"):
        with pytest.raises(InvalidJson, match=f"not valid {encoding}"):
            decompress(body, encoding, limit=LIMIT)


def test_other_encodings_are_refused() -> None:
    assert decompress(b"as it is", "identity", limit=LIMIT) == b"as it is"
    with pytest.raises(UnsupportedMedia):
        decompress(b"", "br", limit=LIMIT)
