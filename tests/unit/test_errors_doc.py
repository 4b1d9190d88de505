"""Every error code that a client can see is explained in docs/errors.md, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import server.agent.main
import server.factory
import server.gate
import server.runtime
from ai_bridge.errors import BridgeError
from context.errors import ContextError
from nodes.errors import NodeError
from server.agent_client import AgentUnavailable
from shared_storage.errors import StorageError

DOC = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
WEB_CODES = {*server.factory.CODES.values(), "bad_request", "internal_error"}
# Raised inside the node only: they end as a log line, a vote's status, or a refused start.
INTERNAL = {
    "context_error", "bridge_error", "node_error", "storage_error", "data_dir_in_use",
    "data_dir_unusable", "term_unreadable", "feed_error", "abstained", "model_unavailable",
    "invalid_prediction", "invalid_record", "layout_too_new", "version_conflict",
    "damaged_bytes", "block_unavailable", "peers_wrong", "secret_missing", "engine_missing",
    "bad_heartbeat", "lease_unreachable",
    "foreign_history", "bad_message", "newer_message", "wrong_sequence", "history_gone",
    "stream_down", "order_rejected",
}  # fmt: skip


def codes(base: type) -> dict[str, int]:
    found = {base.code: base.status}  # type: ignore[attr-defined]
    for child in base.__subclasses__():
        found |= codes(child)
    return found


def test_every_code_is_documented_with_its_status() -> None:
    raised = {each.code: each.status for each in (AgentUnavailable, server.factory.Stopping)}
    raised |= {code: status for status, (code, _) in server.runtime.REFUSALS.items()}
    raised |= codes(server.gate.Refused)
    for base in (ContextError, BridgeError, NodeError, StorageError):
        raised |= codes(base)
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", DOC.read_text(), re.MULTILINE)
    documented = {code: int(status) for code, status in rows}
    assert {c: s for c, s in raised.items() if c not in INTERNAL} | {
        code: documented.get(code, 0) for code in WEB_CODES
    } == documented
    assert set(raised) >= INTERNAL
