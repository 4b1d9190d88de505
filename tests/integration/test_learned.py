"""What was learned survives restarts: the same bits as folding all outcomes, or folded anew."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_bridge.ledger import Ledger
from ai_bridge.prediction import DECISIONS
from ai_bridge.record import outcome_event
from ai_bridge.snapshot import judged_since, ledger_of, state_of
from server.agent import learned
from server.agent.learned import OUTCOME, Learned
from shared_storage.adapters.sqlite import SqliteStateStore
from tests.node_process import NodeProcess
from tests.unit.test_ai_weights import as_distribution, decision
from tests.unit.test_ai_weights import state_of as shown

Event = dict[str, Any]
EVERY = 40


def events(count: int, seed: int = 1) -> list[Event]:
    """Outcomes of decisions on three symbols, some of them late, with sleepers and late votes."""
    chance, ledger, made = random.Random(seed), Ledger(), list[Event]()
    waiting: list[tuple[Event, str]] = []
    for number in range(count):
        said = {
            name: as_distribution([chance.randint(1, 9) for _ in range(3)])
            for name in "abcd"
            if chance.random() < 0.7
        } or {"a": as_distribution([1, 2, 3])}
        record = decision(ledger, number, said, symbols=[chance.choice("XYZ")], deadline_ms=100.0)
        if cover := ledger.conformal.cover(0.8):
            record |= {"coverage": msgspec.to_builtins(cover), "prediction_set": ["buy"]}
        if chance.random() < 0.2:
            late = {**record["votes"][0], "model": "late", "latency_ms": chance.uniform(50, 900)}
            record["late_votes"] = [late]
        waiting.append((record, chance.choice(DECISIONS)))
        while len(waiting) > chance.choice((0, 0, 3)):
            done, outcome = waiting.pop(0)
            made.append(json.loads(json.dumps(outcome_event(done, {"outcome": outcome}))))
            ledger.apply(made[-1], outcome)
    return made


PLAYED = events(300)


def folded(told: Sequence[Event]) -> Ledger:
    ledger = Ledger()
    for event in told:
        ledger.apply(event, event["outcome"])
    return ledger


@settings(max_examples=40)
@given(st.integers(0, len(PLAYED)), st.integers(0, 60))
def test_a_ledger_comes_back_to_the_same_bits_and_goes_on_alike(count: int, more: int) -> None:
    before = folded(PLAYED[:count])
    stored = msgspec.msgpack.encode([state_of(before), judged_since(before, 0)])
    state, judged = msgspec.msgpack.decode(stored)
    again = ledger_of(state, [(key, value) for key, value in judged])
    for event in PLAYED[count : count + more]:
        before.apply(event, event["outcome"])
        again.apply(event, event["outcome"])
    assert msgspec.msgpack.encode(state_of(again)) == msgspec.msgpack.encode(state_of(before))
    assert again.judged == before.judged
    if before.outcomes:
        assert shown(again) == shown(before)


class Place:
    """A data folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.state = folder / "learned", SqliteStateStore(folder / "state.db")

    def start(self, code: str = "c", epoch: str = "e") -> tuple[Learned, Ledger]:
        kept = Learned(self.folder, self.state, code=code, epoch=epoch, every=EVERY)
        ledger = kept.recall()
        kept.settle()
        return kept, ledger

    def tell(self, kept: Learned, ledger: Ledger, told: Sequence[Event]) -> None:
        for event in told:
            value = msgspec.json.encode(event)
            self.state.put(OUTCOME, event["decision_id"], value, now=0)
            ledger.apply(event, event["outcome"])
            kept.note(ledger, event["decision_id"], value)
            kept.settle()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """One that has learned 100 outcomes, 80 of them in its snapshot."""
    made = Place(tmp_path / "one")
    kept, ledger = made.start()
    made.tell(kept, ledger, PLAYED[:100])
    assert kept.saved == 80
    return made


def refused(caplog: pytest.LogCaptureFixture) -> bool:
    return "learning anew from all outcomes" in caplog.messages


def test_a_start_folds_only_what_is_behind_the_snapshot(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = list[str]()
    apply = Ledger.apply

    def counted(self: Ledger, record: Event, outcome: str) -> None:
        applied.append(record["decision_id"])
        apply(self, record, outcome)

    monkeypatch.setattr(Ledger, "apply", counted)
    kept, ledger = place.start()
    assert applied == [event["decision_id"] for event in PLAYED[80:100]]
    place.tell(kept, ledger, PLAYED[100:250])
    assert kept.saved == 240
    kept, ledger = place.start()
    assert not refused(caplog)
    assert shown(ledger) == shown(folded(PLAYED[:250]))
    assert ledger.judged == folded(PLAYED[:250]).judged


def test_a_changed_byte_anywhere_is_found_and_told(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    chance, expected = random.Random(3), shown(folded(PLAYED[:100]))
    files = sorted(path for path in place.folder.iterdir())
    assert [path.name for path in files] == ["judged-0", "judged-40", "weights"]
    kept = {path: path.read_bytes() for path in files}
    for _ in range(60):
        path = chance.choice(files)
        body = bytearray(kept[path])
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        path.write_bytes(body)
        caplog.clear()
        assert shown(place.start()[1]) == expected
        assert refused(caplog)
        for each, whole in kept.items():
            each.write_bytes(whole)
    files[0].unlink()
    assert shown(place.start()[1]) == expected


@pytest.mark.parametrize("other", [{"code": "newer"}, {"epoch": "another"}])
def test_the_snapshot_of_another_program_or_log_is_not_used(
    place: Place, other: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, ledger = place.start(**other)
    assert refused(caplog)
    assert shown(ledger) == shown(folded(PLAYED[:100]))
    caplog.clear()
    place.start(**other)  # it wrote one of its own
    assert not refused(caplog)


def test_the_snapshot_of_another_node_counts_only_where_outcomes_are_the_same(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a folder copied from the leader: its state may have gone another way."""
    for name, told, fits in (
        ("same", PLAYED[:90], True),
        ("behind", PLAYED[:79], False),
        ("other order", [*PLAYED[:78], PLAYED[79], PLAYED[78], *PLAYED[80:90]], False),
        ("other", [*PLAYED[:79], {**PLAYED[79], "outcome": "hold", "asked_at": 9.0}], False),
    ):
        other = Place(tmp_path / name)
        for event in told:
            other.state.put(OUTCOME, event["decision_id"], msgspec.json.encode(event), now=0)
        shutil.copytree(place.folder, other.folder)
        caplog.clear()
        _, ledger = other.start()
        assert refused(caplog) is not fits, name
        assert shown(ledger) == shown(folded(told)), name


def test_a_full_disk_keeps_the_old_snapshot(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept, ledger = place.start()
    with monkeypatch.context() as full:
        full.setattr(learned, "replace_file", _full)
        place.tell(kept, ledger, PLAYED[100:130])
    assert "what was learned was not saved" in caplog.messages
    assert kept.saved == 80
    caplog.clear()
    kept, ledger = place.start()
    assert shown(ledger) == shown(folded(PLAYED[:130]))
    assert not refused(caplog)
    assert kept.saved == 130


def _full(path: Path, content: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_node_starts_from_its_snapshot(tmp_path: Path) -> None:
    """Ten thousand outcomes told before it starts: folded once."""
    data = tmp_path / "node"
    with NodeProcess(data) as node:
        consensus = node.client.get("/api/context/ai/consensus").json()
        assert consensus["outcomes"] == 0
    state = SqliteStateStore(data / "state.db")
    template = PLAYED[200]
    with state._lock, state._db.atomic():
        for number in range(learned.EVERY + 5):
            event = {**template, "decision_id": f"d{number}", "outcome": DECISIONS[number % 3]}
            value = msgspec.json.encode(event)
            state._write(OUTCOME, event["decision_id"], 1, value, 0.0)
    state.close()
    known = []
    for _ in range(2):
        with NodeProcess(data) as node:
            known.append(node.client.get("/api/context/ai/consensus").json())
        assert (data / "learned" / "weights").exists()
    assert known[0]["outcomes"] == learned.EVERY + 5
    assert known[0] == known[1]
