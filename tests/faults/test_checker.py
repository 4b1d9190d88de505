"""The checker accepts every correct history and reports every way of breaking one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.faults.checker import Ack, History, Missed, Seen, violations


@st.composite
def histories(draw: st.DrawFn) -> History:
    """What a correct node does: batches in any order, unknown outcomes, repeats, gaps."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=8))
    history = History()
    for number, size in enumerate(sizes):
        key = f"k{number}"
        history.sent[key] = [f"{key}.{index}" for index in range(size)]
    fates = st.sampled_from(("acknowledged", "acknowledged", "repeated", "unknown", "nothing"))
    for key in draw(st.permutations(list(history.sent))):
        fate, first = draw(fates), len(history.log)
        if fate == "nothing":
            continue
        history.log += [Seen(first + i, item) for i, item in enumerate(history.sent[key])]
        if fate != "unknown":
            last = len(history.log) - 1
            times = 2 if fate == "repeated" else 1
            history.acks += [Ack(key, f"e1:{last}", first, last)] * times
    history.subscribers["all"] = list(history.log)
    if history.log:
        lost = draw(st.integers(1, len(history.log)))
        rest: list[Seen | Missed] = list(history.log[lost:])
        history.subscribers["late"] = [Missed(0, lost - 1), *rest]
    return history


@given(histories())
def test_a_correct_history_has_no_violations(history: History) -> None:
    assert violations(history) == []


Breakage = Callable[[History, int, int], str]


def _drop(history: History, i: int, j: int) -> str:
    """The newest item is not in the log; what follows keeps dense offsets."""
    gone = history.log.pop()
    for given_items in history.subscribers.values():
        assume(given_items[-1] == gone)
        given_items.pop()
    acknowledged = any(ack.last_offset == gone.offset for ack in history.acks)
    assume(acknowledged)
    return "is lost"


def _duplicate(history: History, i: int, j: int) -> str:
    history.log.append(Seen(len(history.log), history.log[i].content))
    for given_items in history.subscribers.values():
        given_items.append(history.log[-1])
    return "is stored 2 times"


def _swap(history: History, i: int, j: int) -> str:
    a, b = history.log[i], history.log[j]
    owners = {item: key for key, items in history.sent.items() for item in items}
    known = {ack.key for ack in history.acks}
    assume(i != j and {owners[str(a.content)], owners[str(b.content)]} & known)
    history.log[i], history.log[j] = replace(a, content=b.content), replace(b, content=a.content)
    history.subscribers = {"all": list(history.log)}
    return "is at offset"


def _alter(history: History, i: int, j: int) -> str:
    history.log[i] = replace(history.log[i], content="another")
    history.subscribers = {"all": list(history.log)}
    return "holds what nobody sent"


def _hole(history: History, i: int, j: int) -> str:
    history.log = [
        item if item.offset < i else replace(item, offset=item.offset + 1) for item in history.log
    ]
    return "is missing in the log"


def _foreign(history: History, i: int, j: int) -> str:
    history.log.append(Seen(len(history.log), "from nowhere"))
    return "holds what nobody sent"


def _second_answer(history: History, i: int, j: int) -> str:
    assume(history.acks)
    ack = history.acks[i % len(history.acks)]
    other = Ack(ack.key, f"e1:{ack.last_offset + 1}", ack.first_offset + 1, ack.last_offset + 1)
    history.acks.append(other)
    return "was answered"


def _other_epoch(history: History, i: int, j: int) -> str:
    assume(len({ack.key for ack in history.acks}) > 1)
    ack = history.acks[-1]
    changed = replace(ack, cursor=f"e2:{ack.last_offset}")
    history.acks = [*(one for one in history.acks if one.key != ack.key), changed]
    return "the epoch changed"


def _wrong_cursor(history: History, i: int, j: int) -> str:
    assume(history.acks)
    ack = history.acks[0]
    history.acks = [replace(ack, cursor="e1:999"), *history.acks[1:]]
    return "cursor e1:999 is not offset"


def _wrong_count(history: History, i: int, j: int) -> str:
    key, items = next(iter(history.sent.items()))
    assume(any(ack.key == key for ack in history.acks))
    history.sent[key] = [*items, "one more"]
    return "items acknowledged"


def _half_stored(history: History, i: int, j: int) -> str:
    key, items = next(iter(history.sent.items()))
    assume(not any(ack.key == key for ack in history.acks))
    assume(any(item.content in items for item in history.log))
    history.sent[key] = [*items, "its last item"]
    return "is lost: not acknowledged, stored"


def _unknown_ack(history: History, i: int, j: int) -> str:
    history.acks.append(Ack("k99", "e1:0", 0, 0))
    return "acknowledges what nobody sent"


def _silent_gap(history: History, i: int, j: int) -> str:
    assume(i < len(history.log) - 1)
    del history.subscribers["all"][i]
    return f"all: offsets {i} to {i} were passed over"


def _ends_early(history: History, i: int, j: int) -> str:
    del history.subscribers["all"][i:]
    return "never came"


def _delivered_twice(history: History, i: int, j: int) -> str:
    history.subscribers["all"].insert(i + 1, history.subscribers["all"][i])
    return "came again or late"


def _delivered_late(history: History, i: int, j: int) -> str:
    assume(i != j)
    given_items = history.subscribers["all"]
    given_items[i], given_items[j] = given_items[j], given_items[i]
    return "came again or late"


def _delivered_altered(history: History, i: int, j: int) -> str:
    history.subscribers["all"][i] = Seen(i, "another")
    return "the log has another item"


def _delivered_unstored(history: History, i: int, j: int) -> str:
    history.subscribers["all"].append(Seen(len(history.log), "lost again"))
    return "is not in the log"


def _gap_too_short(history: History, i: int, j: int) -> str:
    gap, *rest = history.subscribers["late"]
    assert isinstance(gap, Missed)
    history.subscribers["late"] = [Missed(0, gap.last - 1), *rest]
    return "late: "


def _gap_too_long(history: History, i: int, j: int) -> str:
    gap, *rest = history.subscribers["late"]
    assert isinstance(gap, Missed)
    assume(rest)
    history.subscribers["late"] = [Missed(0, gap.last + 1), *rest]
    return "came again or late"


def _gap_unsaid(history: History, i: int, j: int) -> str:
    history.subscribers["late"] = history.subscribers["late"][1:]
    return "late: offsets 0 to"


BREAKAGES: tuple[Breakage, ...] = (
    _drop, _duplicate, _swap, _alter, _hole, _foreign,
    _second_answer, _other_epoch, _wrong_cursor, _wrong_count, _half_stored, _unknown_ack,
    _silent_gap, _ends_early, _delivered_twice, _delivered_late, _delivered_altered,
    _delivered_unstored, _gap_too_short, _gap_too_long, _gap_unsaid,
)  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES)
@given(history=histories(), data=st.data())
def test_every_breakage_is_reported(
    breakage: Breakage, history: History, data: st.DataObject
) -> None:
    assume(history.log)
    place = st.integers(0, len(history.log) - 1)
    expected = breakage(history, data.draw(place), data.draw(place))
    found = violations(history)
    assert any(expected in text for text in found), f"{expected!r} is not in {found}"


def test_equal_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"b\[1\] equals \('a', 0\)"):
        violations(History(sent={"a": ["x"], "b": ["y", "x"]}))


def test_a_node_that_breaks_everything_is_reported_in_few_words() -> None:
    sent = {"a": tuple(f"{n}" for n in range(1000))}
    found = violations(History({**sent}, [Ack("a", "e:999", 0, 999)]))
    assert found[-1] == "... and 980 more of this kind"
    assert len(found) == 21
