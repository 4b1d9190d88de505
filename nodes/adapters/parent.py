"""A child's side of the supervisor: say when ready, and never outlive the parent.

The supervisor passes three environment variables; without them (a role started by hand) the
functions do nothing. They are removed at the first look, so that grandchildren do not use them.

    CONTEXT_READY_FD     write one line there: `ready DETAIL` or `refused REASON`
    CONTEXT_PARENT_FD    a pipe on which nothing is ever written: it ends when the parent does
    CONTEXT_PARENT_PID   who the parent is
"""

from __future__ import annotations

import _thread
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

READY_FD = "CONTEXT_READY_FD"
PARENT_FD = "CONTEXT_PARENT_FD"
PARENT_PID = "CONTEXT_PARENT_PID"

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_ORPHANED = 1  # exit status


def die_with_parent() -> None:
    """Make this process end as soon as the supervisor has; call it first of all.

    On Linux the kernel sends SIGKILL; everywhere a thread waits for the parent's pipe to end. The
    thread is a bare one: `threading` may be replaced by green threads later.
    """
    pid, fd = os.environ.pop(PARENT_PID, ""), os.environ.pop(PARENT_FD, "")
    if not pid or not fd:
        return
    os.set_inheritable(int(fd), False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(pid):  # it died before prctl took effect
        os._exit(_ORPHANED)
    _thread.start_new_thread(_watch, (int(fd), os.read, os._exit))


def announce_ready(detail: str = "") -> None:
    """Tell the supervisor that this process can do its work."""
    _tell(f"ready {detail}")


def announce_refused(reason: str) -> None:
    """Tell the supervisor, in one line, why this process cannot start; then exit."""
    _tell(f"refused {reason}")


def _tell(line: str) -> None:
    fd = os.environ.pop(READY_FD, "")
    if fd:
        with os.fdopen(int(fd), "w", encoding="utf-8") as pipe:
            pipe.write(" ".join(line.split()) + "\n")


def _watch(fd: int, read: Callable[[int, int], bytes], leave: Callable[[int], NoReturn]) -> None:
    read(fd, 1)
    leave(_ORPHANED)
