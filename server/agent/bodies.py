"""Request bodies: content type, and the items they hold."""

from __future__ import annotations

from context.errors import UnsupportedMedia
from context.ingest import Lines, parse_json, parse_ndjson
from context.types import Types
from server.decompression import decompress


def parse(
    body: bytes, *, content_type: str, encoding: str, limit: int, types: Types, now: float
) -> tuple[bytes, Lines]:
    """The plain body, and the lines of the items it holds."""
    media = content_type.partition(";")[0].strip().lower()
    if media not in ("application/json", "application/x-ndjson"):
        raise UnsupportedMedia(
            f"Content-Type {media[:80]!r} is not read here;"
            " send application/json or application/x-ndjson"
        )
    plain = decompress(body, encoding.strip().lower(), limit=limit)
    read = parse_ndjson if media == "application/x-ndjson" else parse_json
    return plain, read(plain, types, now=now)
