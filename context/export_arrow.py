"""Items as an Arrow IPC stream: a schema, record batches, an end mark.

The arrays are made from buffers: `pyarrow.array` would import pandas wherever that is installed,
which takes half a second and 50 MB of the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from context.export import COLUMNS, Format, Items, rows

_UTC = pa.timestamp("us", tz="UTC")
_TYPES = {
    "offset": pa.int64(),
    "timestamp": _UTC,
    "ingested_at": _UTC,
    "price": pa.float64(),
}
_NULLABLE = {"symbol", "price", "metadata"}
SCHEMA = pa.schema(
    [pa.field(name, _TYPES.get(name, pa.string()), name in _NULLABLE) for name in COLUMNS]
)
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # continuation mark, then no metadata


def _record_batch(epoch: str, items: Items) -> bytes:
    """One record batch message; times are rounded to microseconds."""
    if not items:
        return b""
    found = rows(items)
    lines = [row.line for row in found]
    prices = [_finite(row.price) for row in found]
    symbols = [None if row.symbol is None else row.symbol.encode() for row in found]
    columns = [
        _text([f"{epoch}:{row.offset}".encode() for row in found]),
        _fixed(pa.int64(), np.array([row.offset for row in found], np.int64)),
        _text([line.type.encode() for line in lines]),
        _text([line.source.encode() for line in lines]),
        _fixed(_UTC, _micros([float(bytes(line.timestamp)) for line in lines])),
        _fixed(_UTC, _micros([row.ingested_at for row in found])),
        _text(symbols),
        _fixed(pa.float64(), np.array(prices, np.float64), [price is None for price in prices]),
        _text([bytes(line.data) for line in lines]),
        _text([bytes(line.metadata) or None for line in lines]),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    return bytes(batch.serialize().to_pybytes())


def _finite(number: bytes) -> float | None:
    value = float(number) if number else None
    return value if value is not None and isfinite(value) else None


def _micros(seconds: Sequence[float]) -> NDArray[np.int64]:
    return np.rint(np.array(seconds, np.float64) * 1e6).astype(np.int64)


def _fixed(
    kind: pa.DataType, values: NDArray[np.int64] | NDArray[np.float64], absent: Sequence[bool] = ()
) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [_validity(absent), pa.py_buffer(values)])


def _text(texts: Sequence[bytes | None]) -> pa.Array:
    ends = np.zeros(len(texts) + 1, np.int32)
    np.cumsum([len(text or b"") for text in texts], out=ends[1:])
    data = pa.py_buffer(b"".join(text or b"" for text in texts))
    buffers = [_validity([text is None for text in texts]), pa.py_buffer(ends), data]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _validity(absent: Sequence[bool]) -> pa.Buffer | None:
    """Arrow's bitmap of what is there, lowest bit first; None where everything is."""
    if not any(absent):
        return None
    return pa.py_buffer(np.packbits(~np.array(absent, np.bool_), bitorder="little"))


ARROW = Format(
    "application/vnd.apache.arrow.stream",
    "arrow",
    lambda: bytes(SCHEMA.serialize().to_pybytes()),
    _record_batch,
    _END,
)
