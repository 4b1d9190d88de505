"""Bounded decompression of request bodies."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import zstandard

from context.errors import BodyTooLarge, InvalidJson, UnsupportedMedia

_ZSTD_WINDOW = 1 << 27  # the largest window that zstd's own tools use without asking
# So much is fed at a time. It bounds what one step makes, 128 KiB for every 4 bytes of zstd, and
# what is copied where one member ends and the next begins.
_PIECE_BYTES = 1024
_MAX_MEMBERS = 10_000  # without a bound, a million empty ones would keep the node busy for hours


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """The body as it was before `Content-Encoding`; never more than `limit` bytes are produced.

    Raises BodyTooLarge beyond the limit, InvalidJson for damaged data, UnsupportedMedia for an
    encoding other than identity, gzip and zstd.
    """
    try:
        match encoding:
            case "" | "identity":
                plain = body
            case "gzip" | "x-gzip":
                plain = _inflate(body, limit, lambda: zlib.decompressobj(wbits=31))
            case "zstd":
                zstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
                plain = _inflate(body, limit, zstd.decompressobj)
            case _:
                raise UnsupportedMedia(
                    f"Content-Encoding {encoding[:40]!r} is not read here; use gzip or zstd"
                )
    except (zlib.error, zstandard.ZstdError, EOFError) as exc:
        raise InvalidJson(f"the body is not valid {encoding} data: {exc}") from exc
    if len(plain) > limit:
        raise BodyTooLarge(f"the body is larger than {limit} bytes once decompressed")
    return plain


def _inflate(body: bytes, limit: int, start: Callable[[], Any]) -> bytes:
    """All members of a gzip file (RFC 1952) or frames of zstd (RFC 8878), to just over the limit.

    Each is read to its own end, so that one that was cut short is never taken for a whole one.
    """
    parts: list[bytes] = []
    size = at = members = 0
    member = None
    while at < len(body) and size <= limit:
        if member is None or member.eof:
            members += 1
            if members > _MAX_MEMBERS:
                raise EOFError(f"it has more than {_MAX_MEMBERS} parts")
            member = start()
        piece = body[at : at + _PIECE_BYTES]
        parts.append(member.decompress(piece))
        size += len(parts[-1])
        at += len(piece) - len(member.unused_data)
    if size <= limit and member is not None and not member.eof:
        raise EOFError("it ends too early")
    return b"".join(parts)
