"""Loops are compiled beside the node, once, and nobody waits for them who wants to end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node_process import ROOT, NodeProcess, wait_for

# One module that compiles in half a second stands for all.
ONCE = """
import asyncio
from server import loops

loops.MODULES = ("context.bitslices",)
print(loops.uncompiled())
asyncio.run(loops.compile_loops(loops.uncompiled()))
print(loops.uncompiled())
loops._note("context.bitslices").write_text("another version")
print(loops.uncompiled())
"""


@pytest.mark.parametrize("end", [NodeProcess.stop, NodeProcess.kill9])
def test_a_node_ends_at_once_while_loops_compile(
    tmp_path: Path, end: Callable[[NodeProcess], None]
) -> None:
    node = NodeProcess(tmp_path / "data", env={"NUMBA_CACHE_DIR": str(tmp_path / "kept")})
    node.launch()

    def compiles() -> bool:
        return sum("-m server.loops" in command for command in node.pids().values()) == 2

    wait_for(compiles, "two modules to be compiled", 60)
    end(node)


def test_what_is_compiled_is_not_compiled_again(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    argv = [sys.executable, "-c", ONCE]
    told = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[:3] == ["['context.bitslices']", "[]", "['context.bitslices']"]
    assert not told.stderr
