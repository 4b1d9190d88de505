"""The keys by which `tensor_math` lines are found, many lines at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from context import tensor_walk
from context.tensors import KEY_BYTES, Calculation, TensorItem, key_of

_decode = msgspec.json.Decoder(TensorItem).decode
_One = tuple[bytes, int, int]  # key, offset, offset of the meaning


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A key once for each line that carries it, (keys,) each, in no order."""

    keys: NDArray[np.uint64]  # (keys, 2), both halves
    offsets: NDArray[np.int64]
    meant: NDArray[np.int64]  # the same offset where the line tells a meaning, else -1

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Seen:
        """All of them."""
        return cls(
            np.concatenate([_NOTHING.keys, *(part.keys for part in parts)]),
            np.concatenate([_NOTHING.offsets, *(part.offsets for part in parts)]),
            np.concatenate([_NOTHING.meant, *(part.meant for part in parts)]),
        )


_NOTHING = Seen(np.empty((0, 2), np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))


def seen_in(
    text: bytes, begins: NDArray[np.int64], ends: NDArray[np.int64], offsets: NDArray[np.int64]
) -> Seen:
    """The canonical and the sent hash of each line, from `begins` to its newline at `ends`.

    A line that cannot be read has none, which no rule of an item lets happen.
    """
    count = len(begins)
    size = tensor_walk.ROOM_A_BYTE * int((ends - begins).sum()) + tensor_walk.ROOM_A_LINE * count
    room, spans = np.empty(size, dtype=np.uint8), np.empty((count, 2), dtype=np.int64)
    sent, kinds = np.empty((count, 2), dtype=np.int64), np.empty(count, dtype=np.int8)
    keys, meant = np.zeros((count, 2), dtype=np.uint64), np.empty(count, dtype=np.bool_)
    data = np.frombuffer(text, dtype=np.uint8)
    tensor_walk.walk(data, begins, room, spans, sent, kinds, keys, meant)

    usual = np.flatnonzero(spans[:, 1] != tensor_walk.LEFT)
    view, places = room.data, spans[usual].tolist()
    hashed = b"".join([sha256(view[at : at + n]).digest()[:KEY_BYTES] for at, n in places])
    own = _halves(hashed)
    at, told = offsets[usual], np.where(meant[usual], offsets[usual], -1)
    by_hex = kinds[usual] == tensor_walk.HEX
    other = by_hex & (keys[usual] != own).any(axis=1)
    parts = [Seen(own, at, told), Seen(keys[usual][other], at[other], told[other])]

    texts = np.flatnonzero(kinds[usual] == tensor_walk.TEXT)
    rest: list[_One] = []
    for i, (begin, end) in zip(texts.tolist(), sent[usual[texts]].tolist(), strict=True):
        key = key_of(text[begin:end].decode())
        if key != hashed[KEY_BYTES * i : KEY_BYTES * (i + 1)]:
            rest.append((key, int(at[i]), int(told[i])))
    left = np.flatnonzero(spans[:, 1] == tensor_walk.LEFT)
    for offset, begin, end in zip(
        offsets[left].tolist(), begins[left].tolist(), ends[left].tolist(), strict=True
    ):
        rest += _unusual(text[begin:end], offset)
    if rest:
        found, places_of, meanings = zip(*rest, strict=True)
        parts.append(Seen(_halves(b"".join(found)), np.array(places_of), np.array(meanings)))
    return Seen.join(parts)


def prepare() -> None:
    """Load the compiled loop, or compile it where no other start has: some seconds."""
    line = b'{"type":"tensor_math","source":"a","timestamp":1,"data":{"result":1}}\n'
    seen_in(line, np.zeros(1, np.int64), np.array([len(line) - 1]), np.zeros(1, np.int64))


def _halves(keys: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(keys, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def _unusual(line: bytes, offset: int) -> Iterable[_One]:
    data = _read(line)
    if data is None:
        return
    meant = offset if data.context_meaning else -1
    own = data.canonical()
    sent = key_of(data.hash_value) if data.hash_value else None
    if own:
        yield own[:KEY_BYTES], offset, meant
    if sent and (not own or sent != own[:KEY_BYTES]):
        yield sent, offset, meant


def _read(line: bytes) -> Calculation | None:
    try:
        return _decode(line).data
    except (msgspec.DecodeError, RecursionError):
        return None
