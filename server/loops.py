"""Compiles this version's loops in processes of their own, where no start has done so yet.

numba compiles for ten seconds under one lock of the whole process: an agent that did it itself
would not end in time when told to. Loading what is compiled takes it a third of a second.

    python -m server.loops MODULE    compiles one module's loops and notes that they are
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numba

from context import walk
from context.compiled import kept_in
from nodes.adapters.parent import PARENT_FD, PARENT_PID, die_with_parent

log = logging.getLogger(__name__)
# One process each, with a function `prepare`; all other loops together take less than a second.
MODULES = ("context.ingest", "context.tensor_keys")


def uncompiled() -> list[str]:
    """The modules whose loops no start of this version has compiled; none where nothing is kept."""
    version = _version()
    notes = {name: _note(name) for name in MODULES}
    return [name for name, note in notes.items() if note and _told(note) != version]


async def compile_loops(modules: Sequence[str]) -> None:
    """Compile modules' loops, each in a process; ends them when cancelled.

    A failure is logged and nothing more: whoever needs a loop first compiles it.
    """
    watched, hold = os.pipe()
    env = {**os.environ, PARENT_FD: str(watched), PARENT_PID: str(os.getpid())}
    started: list[asyncio.subprocess.Process] = []
    try:
        for name in modules:
            argv = (sys.executable, "-m", __name__, name)
            started.append(
                await asyncio.create_subprocess_exec(*argv, env=env, pass_fds=(watched,))
            )
        codes = [await process.wait() for process in started]
        if any(codes):
            log.warning("loops are compiled when needed", extra={"statuses": codes})
    except OSError as exc:
        log.warning("loops are compiled when needed", extra={"reason": str(exc)})
    finally:
        os.close(hold)
        os.close(watched)
        for process in started:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _compile(name: str) -> None:
    before = _version()
    import_module(name).prepare()
    note = _note(name)
    if note:
        note.write_text(before)


def _note(name: str) -> Path | None:
    """The file that tells what was compiled last, beside the machine code."""
    folder = kept_in(walk.walk)
    return Path(folder) / f"compiled-{name}" if folder else None


def _told(note: Path) -> str | None:
    try:
        return note.read_text()
    except OSError:
        return None


def _version() -> str:
    """Digest of what decides whether machine code is still the one of its source."""
    files = sorted(Path(walk.__file__).parent.glob("*.py"))
    told = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    return hashlib.sha256(repr((numba.__version__, sys.version, told)).encode()).hexdigest()


if __name__ == "__main__":
    die_with_parent()
    _compile(sys.argv[1])
