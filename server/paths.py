"""Where the processes of one node meet."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from server.config import Settings

_LONGEST = 100  # bytes; the address of a Unix socket holds 108 on Linux, 104 elsewhere


def agent_socket(settings: Settings) -> Path:
    """Socket of the agent process."""
    return _socket(settings, "agent.sock")


def worker_socket(settings: Settings) -> Path:
    """Socket of the torch worker."""
    return _socket(settings, "torch.sock")


def semantic_socket(settings: Settings) -> Path:
    """Socket of the worker that searches by meaning."""
    return _socket(settings, "semantic.sock")


def web_socket(settings: Settings, number: int) -> Path:
    """Where one of several web processes is reached by the others."""
    return _socket(settings, f"web-{number}.sock")


def _socket(settings: Settings, name: str) -> Path:
    """In the data folder; where that path is too long, in a private folder for temporary files."""
    path = settings.data_dir.resolve() / name
    if len(str(path).encode()) <= _LONGEST:
        return path
    digest = hashlib.blake2b(str(path.parent).encode(), digest_size=8).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"context-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name
