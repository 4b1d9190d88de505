"""Frames that go out in one write are the same bytes in the same order as one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.forms import FRAME_BYTES, Emitted, EventStream, Form, Frame, SocketIo

SIZES = st.lists(st.integers(1, 2 * FRAME_BYTES), max_size=30)
FORMS = st.sampled_from([EventStream("e"), SocketIo("e", "s1")])


@given(SIZES, FORMS)
def test_joined_frames_are_the_same_bytes(sizes: list[int], form: Form) -> None:
    frames = [Frame(bytes([i]) * size, i) for i, size in enumerate(sizes)]
    runs = list(form.joined(frames))
    assert b"".join(run.data for run in runs) == b"".join(frame.data for frame in frames)
    assert sum(run.count for run in runs) == len(frames)
    at = 0
    for run in runs:
        at += run.count
        assert run.reaches == frames[at - 1].reaches  # never beyond what it holds
        assert len(run.data) <= FRAME_BYTES or run.count == 1


def test_python_socketio_is_given_its_events_one_by_one() -> None:
    frames = [Frame(("context", {}), 1), Frame(("gap", {}), 2)]
    assert Emitted("e", "s1").joined(frames) == frames
