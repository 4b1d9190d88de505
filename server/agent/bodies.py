"""Request bodies: content type, bounded decompression, and what they hold."""

from __future__ import annotations

import zlib

import zstandard

from context.errors import BodyTooLarge, InvalidJson, UnsupportedMedia
from context.ingest import parse_json, parse_ndjson
from context.types import Types

_ZSTD_WINDOW = 1 << 27  # the largest window that zstd's own tools use without asking


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
                plain = _gunzip(body, limit)
            case "zstd":
                reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
                plain = reader.stream_reader(body, read_across_frames=True).read(limit + 1)
            case _:
                raise UnsupportedMedia(
                    f"Content-Encoding {encoding[:40]!r} is not read here; use gzip or zstd"
                )
    except (zlib.error, zstandard.ZstdError, EOFError) as exc:
        raise InvalidJson(f"the body is not valid {encoding} data: {exc}") from exc
    if len(plain) > limit:
        raise BodyTooLarge(f"the body is larger than {limit} bytes once decompressed")
    return plain


def _gunzip(body: bytes, limit: int) -> bytes:
    """All members of a gzip file (RFC 1952), stopping just beyond the limit."""
    parts, size = [], 0
    while body and size <= limit:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(body, limit + 1 - size))
        size += len(parts[-1])
        if size <= limit and not member.eof:
            raise EOFError("it ends too early")
        body = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def parse(
    body: bytes, *, content_type: str, encoding: str, limit: int, types: Types, now: float
) -> tuple[bytes, int, bytes]:
    """The plain body, and the count and lines of the items it holds."""
    media = content_type.partition(";")[0].strip().lower()
    if media not in ("application/json", "application/x-ndjson"):
        raise UnsupportedMedia(
            f"Content-Type {media[:80]!r} is not read here;"
            " send application/json or application/x-ndjson"
        )
    plain = decompress(body, encoding.strip().lower(), limit=limit)
    read = parse_ndjson if media == "application/x-ndjson" else parse_json
    return plain, *read(plain, types, now=now)
