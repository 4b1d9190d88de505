"""Whole WebSocket messages are read as wsproto reads them, and nothing else is taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from server.websocket import whole_texts

TEXTS = st.one_of(
    st.text(max_size=300), st.sampled_from(["", "x" * 125, "x" * 126, "é" * 63, "y" * 65535])
)


def sent(texts: list[str]) -> bytes:
    """As a client sends them, each masked with a key of its own."""
    client = FrameProtocol(client=True, extensions=[])
    return b"".join(client.send_data(text, fin=True) for text in texts)


def by_wsproto(data: bytes) -> list[str] | None:
    """The messages, where each is text in one frame that has come whole; else None."""
    server = FrameProtocol(client=False, extensions=[])
    texts, size = [], 0
    try:
        server.receive_bytes(data)
        for frame in server.received_frames():
            whole = frame.frame_finished and frame.message_finished
            if frame.opcode is not Opcode.TEXT or not whole:
                return None
            texts.append(str(frame.payload))
            size += len(sent([texts[-1]]))
    except ParseFailed:
        return None
    return texts if size == len(data) else None


@given(st.lists(TEXTS, max_size=4))
def test_messages_are_those_that_were_sent(texts: list[str]) -> None:
    assert whole_texts(sent(texts)) == texts


@given(st.lists(TEXTS, min_size=1, max_size=3), st.data())
def test_what_is_cut_or_damaged_is_read_as_wsproto_reads_it(
    texts: list[str], data: st.DataObject
) -> None:
    stream = bytearray(sent(texts))
    at = data.draw(st.integers(0, min(len(stream) - 1, 12)) | st.integers(0, len(stream) - 1))
    stream[at] = data.draw(st.integers(0, 255))
    stream = stream[: data.draw(st.integers(len(stream) - 3, len(stream)))]
    found = whole_texts(bytes(stream))
    assert found is None or found == by_wsproto(bytes(stream))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_as_wsproto_reads_them_or_left_to_it(data: bytes) -> None:
    found = whole_texts(data)
    assert found is None or found == by_wsproto(data)
