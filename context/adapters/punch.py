"""Holes in files: space of what is no longer needed goes back to the disk (fallocate(2))."""

from __future__ import annotations

import ctypes
import logging
import os

log = logging.getLogger(__name__)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


def punch(fd: int, begin: int, end: int) -> bool:
    """Give the bytes from `begin` to `end` back to the disk; False where it cannot do that."""
    if end <= begin or not _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, begin, end - begin):
        return True
    log.debug("no hole could be made", extra={"reason": os.strerror(ctypes.get_errno())})
    return False
