"""The chain over a real node's decisions: concurrent, over restarts, and against changed bytes."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from context.adapters.archive import Archive
from context.adapters.log_sqlite import SqliteLog
from tests.integration.test_api_ai import DECIDE, DECISIONS, post, trades
from tests.node_process import ROOT, Api, NodeProcess, wait_for

CHAIN = "/api/context/ai/chain"


def verify(*args: str) -> tuple[int, dict[str, Any]]:
    """Exit status and report of `--verify-decisions --json`."""
    done = subprocess.run(
        [sys.executable, "app.py", "--verify-decisions", "--json", *args],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def decide(api: Api, symbol: str, count: int) -> list[dict[str, Any]]:
    """Decisions taken at once."""
    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(post, api, DECIDE, {"symbols": [symbol]}) for _ in range(count)]
        return [task.result() for task in tasks]


def test_a_decision_explains_itself(api: Api) -> None:
    symbol = f"S{uuid.uuid4().hex[:10]}"
    api.ingest(trades(symbol))
    decision = post(api, DECIDE, {"symbols": [symbol]})
    assert all(len(vote["digest"]) == 64 for vote in decision["votes"])
    assert len(decision["code"]) == 64
    where = f"{DECISIONS}/{decision['decision_id']}"
    before = api.get(where).json()
    assert before["unaltered"] is True
    assert before["weights"]["after"] is None
    assert {each["model"] for each in before["impact"]} == {
        vote["model"] for vote in decision["votes"] if vote["weight"]
    }
    post(api, f"{where}/outcome", {"outcome": "buy"})
    after = api.get(where).json()
    assert after["weights"]["before"] == decision["weights_before"]
    assert after["weights"]["after"].keys() == decision["weights_before"].keys()
    assert after["weights"]["after"] != after["weights"]["before"]
    for part in (symbol, "buy turned out right", "Learned weights went from", "as they were"):
        assert part in after["explanation"]
    again = post(api, f"{where}/replay", {})
    assert again["identical"] is again["unaltered"] is True
    assert again["impact"] == before["impact"]


def test_nobody_else_writes_entries(api: Api) -> None:
    epoch = api.get(CHAIN).json()["epoch"]
    data = {"model": "m", "decision": "buy", "chain": {"epoch": epoch, "seq": 0}}
    refused = api.post("/api/context/ingest", json={"type": "ai_decision", "data": data})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_item")
    data["chain"] = {"epoch": "another", "seq": 0}
    api.ingest({"type": "ai_decision", "data": data})
    assert verify("--url", api.url)[0] == 0


def test_the_chain_goes_on_after_kill_9_and_changed_bytes_are_found(own_node: NodeProcess) -> None:
    api, folder = own_node.client, str(own_node.data_dir)
    api.ingest(trades("X", 60))
    links = [each["chain"]["seq"] for each in decide(api, "X", 20)]
    assert sorted(links) == list(range(20))
    own_node.kill9()
    own_node.start()
    decide(api, "X", 12)
    head = api.get(CHAIN).json()
    assert head["seq"] == 31
    kept = f"{head['seq']}:{head['hash']}"
    status, report = verify("--url", own_node.url, "--head", kept)
    assert (status, report["entries"], report["replayed"]) == (0, 32, 32)
    assert verify("--data", folder)[0] == 1  # the node runs there
    own_node.stop()
    status, report = verify("--data", folder, "--head", kept)
    assert (status, report["entries"], report["head"]["hash"]) == (0, 32, head["hash"])
    _change_bytes(own_node.data_dir, folder)
    _cut_short(own_node.data_dir, folder)


def _change_bytes(data: Path, folder: str) -> None:
    """Flip a byte of a stored entry at a time."""
    log_ = SqliteLog(data / "log.db")
    texts = [(b.first_offset, b.text) for b in log_.read(-1, max_bytes=1 << 30)]
    log_.close()
    entries = [(first, text) for first, text in texts if b'"chain":{"epoch"' in text]
    rng = random.Random(5)
    for first, text in rng.sample(entries, 4):
        at = rng.randrange(len(text) - 1)
        bad = text[:at] + bytes([text[at] ^ (1 << rng.randrange(7))]) + text[at + 1 :]
        _store(data, first, bad)
        status, report = verify("--data", folder)
        assert status == 1, (first, at, text[at : at + 9], report)
        _store(data, first, text)
    assert verify("--data", folder)[0] == 0


def _cut_short(data: Path, folder: str) -> None:
    """Remove the newest batch: the head that the node saved tells."""
    with sqlite3.connect(data / "log.db") as db:
        newest = "(SELECT max(first_offset) FROM batches)"
        db.execute(f"DELETE FROM batches WHERE first_offset = {newest}")
    db.close()
    status, report = verify("--data", folder)
    assert status == 1
    assert [each["kind"] for each in report["problems"]] == ["head"]


def _store(data: Path, first: int, text: bytes) -> None:
    """Replace a batch's text, as somebody with access to the file could."""
    with sqlite3.connect(data / "log.db") as db:
        db.execute("UPDATE batches SET codec = 0, body = ? WHERE first_offset = ?", (text, first))
    db.close()


def test_a_changed_byte_of_a_sealed_block_is_found(own_node: NodeProcess) -> None:
    api, data = own_node.client, own_node.data_dir
    api.ingest(trades("X", 60))
    decide(api, "X", 9)
    padding = [{"type": "padding", "data": {"n": n, "text": "x" * 200}} for n in range(5000)]
    for _ in range(5):
        api.ingest(padding)
    decide(api, "X", 3)
    wait_for(lambda: any(data.glob("blocks*")) and Archive(data).heads(), "a sealed block")
    own_node.stop()
    archive = Archive(data)
    head = archive.heads()[0]
    place = archive.blocks._places[head.bounds.first_offset]
    assert verify("--data", str(data))[1]["replayed"] == 12
    with place.path.open("r+b") as file:
        file.seek(place.at + place.length // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x10]))
    log_ = SqliteLog(data / "log.db")
    oldest_in_log = log_.bounds()[0]
    log_.close()
    status, report = verify("--data", str(data))
    if oldest_in_log > head.bounds.last_offset:  # else it was made again from the log
        assert (status, report["problems"][0]["kind"]) == (1, "lost")
        own_node.start()
        status, report = verify("--url", own_node.url)
        assert (status, report["problems"][0]["kind"]) == (1, "lost")
    else:
        assert (status, report["replayed"]) == (0, 12)
