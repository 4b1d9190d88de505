"""Loops as machine code, made by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

T = TypeVar("T")


def compiled(function: Callable[..., T], **options: Any) -> Callable[..., T]:
    """Compile a loop, free of the interpreter's lock; keep the machine code where there is room."""
    made: Any
    try:
        made = njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        made = njit(nogil=True, **options)(function)
    result: Callable[..., T] = made
    return result


def inlined(function: Callable[..., T]) -> Callable[..., T]:
    """Compile a part of a loop that becomes one with what calls it."""
    return compiled(function, forceinline=True)


def kept_in(loop: Any) -> str | None:
    """Folder where the machine code of a compiled loop is kept; None where it is not."""
    folder: str | None = loop.stats.cache_path
    return folder
