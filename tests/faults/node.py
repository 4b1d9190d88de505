"""A node that is hurt: its processes killed alone or together, or stopped for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.node_process import NodeProcess, wait_for

WHOLE = ("everything", "supervisor")  # after these nothing of the node may be left


class HurtNode(NodeProcess):
    """`kill(what)`: "everything" at once, the "supervisor" alone, or only "agent" or "web"."""

    def kill(self, what: str) -> None:
        """SIGKILL, then what an operator does: the whole node is started again, a child is not."""
        if what in WHOLE:
            if what == "everything":
                for pid in self.pids():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.kill9()  # of the supervisor; asserts that no process is left
            self.start()
            return
        before = self.child(f"server.{what}")
        os.kill(before, signal.SIGKILL)
        # A read from the whole node answers again, and not from the process that was killed.
        wait_for(lambda: before not in self.pids(), f"the {what} process to end")
        self.wait_ready()

    @contextmanager
    def stopped(self, what: str) -> Iterator[None]:
        """SIGSTOP one child for a while: it is there, and answers nothing."""
        pid = self.child(f"server.{what}")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
