"""One owner for a data directory, and a term that only grows, whatever ends the owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.adapters.lease_local import LocalLease
from nodes.errors import DataDirInUse, DataDirUnusable, TermUnreadable

ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import pathlib, sys
from nodes.adapters.lease_local import LocalLease
print(LocalLease(pathlib.Path(sys.argv[1])).acquire(), flush=True)
sys.stdin.read()
"""


def test_the_term_grows_at_every_start(tmp_path: Path) -> None:
    terms = []
    for _ in range(3):
        lease = LocalLease(tmp_path / "new" / "data")
        terms.append(lease.acquire())
        lease.release()
    assert terms == [1, 2, 3]


def test_a_second_owner_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "1\n"
        with pytest.raises(DataDirInUse, match=rf"{tmp_path} is in use by process {owner.pid};"):
            LocalLease(tmp_path).acquire()
        owner.kill()
    lease = LocalLease(tmp_path)
    assert lease.acquire() == 2  # the refused one took no term
    lease.release()


@pytest.mark.parametrize("content", [b"", b"7\n", b"context-term 2 7\n", b"context-term 1 -7\n"])
def test_a_damaged_term_is_never_guessed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "term").write_bytes(content)
    for _ in range(2):  # the refusal gives the lock back
        with pytest.raises(TermUnreadable, match="term: not a term file of version 1"):
            LocalLease(tmp_path).acquire()
    assert (tmp_path / "term").read_bytes() == content


def test_a_crash_while_writing_the_term_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "term").write_bytes(b"context-term 1 7\n")
    (tmp_path / "term.new").write_bytes(b"contex")
    lease = LocalLease(tmp_path)
    assert lease.acquire() == 8
    lease.release()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DataDirUnusable, match=r"data directory .*/data: "):
        LocalLease(tmp_path / "data").acquire()
