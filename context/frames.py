"""Exports as data frames. Loaded on use: a client needs neither pandas nor polars nor pyarrow."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from typing import Any

Export = Callable[..., Any]  # Client.export


def to_pandas(export: Export, **filters: Any) -> Any:
    """A pandas DataFrame; needs pandas and pyarrow."""
    arrow = importlib.import_module("pyarrow")
    return arrow.ipc.open_stream(_stream(export, filters)).read_all().to_pandas()


def to_polars(export: Export, **filters: Any) -> Any:
    """A polars DataFrame; needs polars alone."""
    polars = importlib.import_module("polars")
    return polars.read_ipc_stream(_stream(export, filters))


def _stream(export: Export, filters: dict[str, Any]) -> io.BytesIO:
    stream = io.BytesIO()
    export(stream, "arrow", **filters)
    stream.seek(0)
    return stream
