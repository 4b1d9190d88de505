"""Items on their way between nodes of neighbouring versions; the newer of the two translates."""

from __future__ import annotations

from collections.abc import Mapping

from context.casting import CASTING
from context.errors import ContextError
from server.decompression import decompress

INGEST = "/api/context/ingest"
ENCODING, TYPE = "Content-Encoding", "Content-Type"
VERSION = "Context-Protocol"  # header: the version in which a passed body is written


def recast(  # noqa: PLR0917
    path: str, headers: Mapping[str, str], body: bytes, have: int, want: int, limit: int
) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of a call in another version; `limit` bounds the body decompressed.

    What cannot be read stays: whoever stores it says what is wrong.
    """
    if have == want or path != INGEST or not CASTING.casts(have, want):
        return headers, body
    try:
        plain = decompress(body, headers.get(ENCODING, "").strip().lower(), limit=limit)
    except ContextError:
        return headers, body
    cast = CASTING.body(plain, have, want, ndjson="ndjson" in headers.get(TYPE, ""))
    return {name: value for name, value in headers.items() if name != ENCODING}, cast
