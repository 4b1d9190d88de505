"""Indexing anew: the same n-grams come out, damage is found and mended, a running node is safe."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from context.adapters import archive
from context.adapters.archive import Archive
from context.adapters.log_sqlite import SqliteLog
from context.adapters.reindexing import reindex
from context.bitslices import BitSlices
from context.damage import DamagedLog
from context.ports import Draft
from tests.integration.test_archive import ITEMS, LINES, Memory, expected
from tests.integration.test_damage import asked, body, filled, flip, found
from tests.node_process import ROOT, NodeProcess


def run(folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Status, the document and what went to standard error."""
    done = subprocess.run(
        [sys.executable, "app.py", "--reindex", "--data", str(folder), "--json", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_the_same_n_grams_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BitSlices", partial(BitSlices, size=2))
    filled(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    assert len(before) == 2
    for path in (tmp_path / "rows").iterdir():
        path.unlink()
    seen: list[tuple[int, int, int]] = []
    log = SqliteLog(tmp_path / "log.db")
    done = reindex(Archive(tmp_path), log, threads=3, progress=lambda *told: seen.append(told))
    log.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "rows").iterdir()} == before
    assert (done.blocks, done.items, done.mended) == (4, ITEMS, 0)
    assert done.nbytes == sum(len(line) + 1 for line in LINES)
    assert [at for at, total, _ in seen] == [1, 2, 3, 4]


def test_damage_is_mended_where_the_log_has_it_and_named_where_not(tmp_path: Path) -> None:
    lost = filled(tmp_path)[1]
    memory = Memory(tmp_path, sealing=False)
    flip(memory, lost.first_offset, body)
    memory.stop()
    told = [{"first": lost.first_offset, "last": lost.last_offset}]
    for _ in range(2):
        status, report, complaint = run(tmp_path, "--progress")
        assert (status, report["damaged"], report["mended"]) == (1, told, 0)
        assert report["items"] == ITEMS - lost.count
        assert f"items {lost.first_offset} to {lost.last_offset} are lost" in complaint
        assert "3/3 blocks" in complaint or "4/4 blocks" in complaint
    again = Memory(tmp_path)
    again.settled()
    rest = [i for i in expected("advisor") if not lost.first_offset <= i <= lost.last_offset]
    assert found(asked(again, "advisor")) == rest
    again.stop()


def test_a_line_of_the_log_that_is_no_item_is_named(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    for line in (LINES[0].encode(), b'{"type":7}'):
        log.append([Draft(1, line + b"\n")], term=1, now=1.0)
    with pytest.raises(DamagedLog, match="from offset 1 on"):
        reindex(Archive(tmp_path), log, threads=1, progress=lambda *_: None)
    log.close()


def test_it_refuses_where_a_node_runs_or_nothing_is(own_node: NodeProcess, tmp_path: Path) -> None:
    status, report, complaint = run(own_node.data_dir)
    assert (status, report) == (1, {})
    assert "is in use by process" in complaint
    assert own_node.client.get("/readyz").status_code == 200
    status, _, complaint = run(tmp_path / "nothing")
    assert status == 1
    assert "holds no node's data" in complaint
