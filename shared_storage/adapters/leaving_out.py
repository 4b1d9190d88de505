"""Loads a library without one of its optional dependencies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def leaving_out(name: str) -> Iterator[None]:
    """While this is open, an import of `name` fails as if it were not installed.

    sqlite-utils imports pandas wherever that is installed, for tables made of data frames: half a
    second and 60 MB of each node that makes none.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what the import system documents
    try:
        yield
    finally:
        del sys.modules[name]
