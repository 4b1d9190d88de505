"""A node that is hurt: its processes killed alone or together, or stopped for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.node_process import NodeProcess, wait_for

BROKEN = Path(__file__).with_name("broken")
WHOLE = ("everything", "supervisor")  # after these nothing of the node may be left


def broken(build: str) -> dict[str, str]:
    """Environment that makes a node a broken build (see `broken/sitecustomize.py`)."""
    return {
        "PYTHONPATH": str(BROKEN),
        "BROKEN_BUILD": build,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class HurtNode(NodeProcess):
    """`kill(what)`: "everything" at once, the "supervisor" alone, or only "agent" or "web"."""

    def kill(self, what: str) -> None:
        """SIGKILL, then what an operator does: the whole node is started again, a child is not."""
        if what in WHOLE:
            self.kill_and_leave(what)
            self.start()
            return
        before = self.child(f"server.{what}")
        os.kill(before, signal.SIGKILL)
        # A read from the whole node answers again, and not from the process that was killed.
        wait_for(lambda: before not in self.pids(), f"the {what} process to end")
        self.wait_ready()

    def kill_and_leave(self, what: str) -> None:
        """SIGKILL "everything" or the "supervisor"; asserts that no process is left."""
        if what == "everything":
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.kill9()

    @contextmanager
    def stopped(self, what: str) -> Iterator[None]:
        """SIGSTOP one child for a while: it is there, and answers nothing."""
        pid = self.child(f"server.{what}")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
