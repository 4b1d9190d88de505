"""The persisted term: the fencing token of every write, greater at every start.

Layout, version 1: one line of text, `context-term 1 <term>`, ended by a line feed.
"""

from __future__ import annotations

import re

from nodes.errors import TermUnreadable

FIRST_TERM = 1
_LINE = re.compile(rb"context-term 1 ([1-9][0-9]{0,17})\n")


def encode_term(term: int) -> bytes:
    """The content of the term file."""
    return f"context-term 1 {term}\n".encode()


def next_term(stored: bytes | None) -> int:
    """The term of the reign that begins now, given the file's content; None for no file.

    Raises TermUnreadable where the content is not a term of version 1.
    """
    if stored is None:
        return FIRST_TERM
    match = _LINE.fullmatch(stored)
    if match is None:
        raise TermUnreadable(f"not a term file of version 1: {stored[:40]!r}")
    return int(match[1]) + 1
