"""The lease of a single node: it leads as long as it holds its data directory.

Files in the directory: `lock` (flock, and the owner's process id as text) and `term` (see
`nodes.term`). The kernel gives up the flock with the process, so a killed node leaves no stale one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nodes.errors import DataDirInUse, DataDirUnusable, TermUnreadable
from nodes.term import encode_term, next_term
from shared_storage.adapters.durable import replace_file

LOCK = "lock"


def owner(data_dir: Path) -> int | None:
    """Process id of who owned the directory last; None where nobody ever did."""
    try:
        return int((data_dir / LOCK).read_bytes())
    except (OSError, ValueError):
        return None


class LocalLease:
    """Sole ownership of a data directory, with a term that grows at every start."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir
        self._lock: int | None = None  # a bare descriptor: no garbage collector closes it

    def acquire(self) -> int:
        """Own the directory, made where missing, and return the new, durable term.

        Raises DataDirInUse where another process owns it, DataDirUnusable where it cannot be
        written, TermUnreadable where the last term is damaged.
        """
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            return self._begin_reign()
        except OSError as exc:
            self.release()
            raise DataDirUnusable(f"data directory {self._dir}: {exc.strerror}") from exc

    def release(self) -> None:
        """Give the directory up; the process's end does it too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        lock = os.open(self._dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise DataDirInUse(
                f"data directory {self._dir} is in use by process {owner}; "
                "stop it or choose another directory"
            ) from None
        self._lock = lock
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())

    def _begin_reign(self) -> int:
        path = self._dir / "term"
        try:
            term = next_term(path.read_bytes() if path.exists() else None)
        except TermUnreadable as exc:
            self.release()
            raise TermUnreadable(f"{path}: {exc.detail}") from exc
        replace_file(path, encode_term(term))
        return term
