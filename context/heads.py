"""What filters ask of lines, as columns: time, type, source and symbol of each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.column import Column


class _Symbol(Protocol):
    symbol: Any


class Head(Protocol):
    """The part of an item that columns are made of."""

    @property
    def type(self) -> str:
        """Type of the item."""

    source: str
    timestamp: float

    @property
    def data(self) -> _Symbol:
        """Its `symbol`, which may be anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Columns of consecutive lines, (items,) each."""

    timestamps: NDArray[np.float64]  # event time, unix seconds
    types: Column
    sources: Column
    symbols: Column

    @classmethod
    def of(cls, items: Sequence[Head]) -> Heads:
        """The columns of these items."""
        return cls(
            np.array([item.timestamp for item in items], dtype=np.float64),
            Column.of([item.type for item in items]),
            Column.of([item.source for item in items]),
            Column.sparse([item.data.symbol for item in items]),
        )

    @classmethod
    def read(cls, text: bytes) -> Heads:
        """The columns of stored lines. Raises msgspec.DecodeError for anything else."""
        return cls.of(_decode_lines(text))

    @classmethod
    def join(cls, parts: Sequence[Heads]) -> Heads:
        """The columns of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.timestamps for part in parts]),
            Column.join([part.types for part in parts]),
            Column.join([part.sources for part in parts]),
            Column.join([part.symbols for part in parts]),
        )


class _Data(msgspec.Struct, gc=False):
    symbol: Any = None


class _Line(msgspec.Struct, gc=False):
    type: str
    source: str
    timestamp: float
    data: _Data


_decode_lines = msgspec.json.Decoder(_Line).decode_lines
