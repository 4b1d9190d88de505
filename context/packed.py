"""Columns as bytes: close to what zstd packs best, and read back without trusting them.

Layout in docs/block-format.md. Whatever the bytes are, reading ends with columns that fit each
other or with BadColumns.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.column import Column
from context.heads import Heads

Runs = Sequence[tuple[int, float]]  # (index of the first item, value that holds from there)


class BadColumns(ValueError):
    """The bytes are no columns."""


class _Carried(msgspec.Struct, array_like=True, frozen=True):
    """Columns with their names; nothing else is needed to read them but the number of items."""

    types: list[str]
    sources: list[str]
    symbols: list[str]
    packed: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Carried).decode


def pack(heads: Heads, runs: Runs, terms: Runs) -> bytes:
    """All columns of a block, `runs` of times and `terms` of whole numbers."""
    return b"".join((_pack_heads(heads), _pack_runs(runs, "<f8"), _pack_runs(terms, "<u8")))


def carry(heads: Heads) -> bytes:
    """Columns with their names, for who has the lines but not their columns."""
    types, sources, symbols = (
        list(column.values) for column in (heads.types, heads.sources, heads.symbols)
    )
    return _encode(_Carried(types, sources, symbols, _pack_heads(heads)))


def carried(data: bytes, count: int) -> Heads:
    """Columns of so many items, as `carry` wrote them. Raises BadColumns."""
    try:
        told = _decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadColumns(str(exc)) from exc
    columns = Unpacker(told.packed, count)
    heads = columns.heads(told.types, told.sources, told.symbols)
    columns.finish()
    return heads


def _pack_heads(heads: Heads) -> bytes:
    # Neighbours are close, so the high bytes of their differences are alike: those lie together.
    steps = np.diff(heads.timestamps.view("<i8"), prepend=np.int64(0))
    planes = steps.view(np.uint8).reshape(-1, 8).T.tobytes()
    columns = heads.types, heads.sources, heads.symbols
    codes = [(c.codes + 1).astype(_width(len(c.values))).tobytes() for c in columns]
    return b"".join((planes, *codes))


def _width(names: int) -> str:
    """The smallest type for codes 0 (no text) to `names`."""
    return "<u1" if names < 1 << 8 else "<u2" if names < 1 << 16 else "<u4"


def _pack_runs(runs: Runs, kind: str) -> bytes:
    index = np.array([i for i, _ in runs], dtype="<u4")
    values = np.array([value for _, value in runs], dtype=kind)
    return len(index).to_bytes(4, "little") + index.tobytes() + values.tobytes()


class Unpacker:
    """Reads packed columns of `count` items one after another; all raise BadColumns."""

    def __init__(self, packed: bytes, count: int) -> None:
        self._packed, self._count, self._at = packed, count, 0

    def timestamps(self) -> NDArray[np.float64]:
        """Event times."""
        planes = self._take("u1", 8 * self._count).reshape(8, self._count)
        steps = np.ascontiguousarray(planes.T).view("<i8").ravel()
        return np.cumsum(steps, dtype=np.int64).view(np.float64)

    def column(self, names: Sequence[str]) -> Column:
        """A column of these texts, given in the order of their codes."""
        values = {name: code for code, name in enumerate(names)}
        codes = self._take(_width(len(names)), self._count)
        if len(values) < len(names) or int(codes.max(initial=0)) > len(names):
            raise BadColumns("a column has codes without a text")
        return Column(values, codes.astype(np.int32) - np.int32(1))

    def heads(self, types: Sequence[str], sources: Sequence[str], symbols: Sequence[str]) -> Heads:
        """Event times, and the columns of these texts."""
        return Heads(
            self.timestamps(), self.column(types), self.column(sources), self.column(symbols)
        )

    def runs(self, kind: str) -> list[tuple[int, float]]:
        """Runs of values of this type, as numpy calls it."""
        (length,) = self._take("<u4", 1).tolist()
        if not 0 < length <= self._count:
            raise BadColumns(f"{length} runs of {self._count} items")
        index, values = self._take("<u4", length), self._take(kind, length)
        if index[0] or (np.diff(index.astype(np.int64)) <= 0).any() or index[-1] >= self._count:
            raise BadColumns("runs do not follow each other")
        return list(zip(index.tolist(), values.tolist(), strict=True))

    def finish(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._packed):
            raise BadColumns(f"{len(self._packed) - self._at} bytes too many")

    def _take(self, kind: str, count: int) -> NDArray[np.generic]:
        dtype = np.dtype(kind)
        first, self._at = self._at, self._at + count * dtype.itemsize
        if self._at > len(self._packed):
            raise BadColumns(f"{self._at - len(self._packed)} bytes missing")
        return np.frombuffer(self._packed, dtype=dtype, count=count, offset=first)
