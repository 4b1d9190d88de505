"""Lines of a recording: a file or standard input, plain, gzip or Zstandard, in constant memory."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Self

import zstandard

from server.cli.pacing import MAX_LINE_BYTES

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class Recording(AbstractContextManager["Recording"]):
    """Yields lines, and tells how much of the file has been read.

    Opening raises OSError; reading raises one of DAMAGED where the compressed data is cut or wrong.
    """

    def __init__(self, path: str) -> None:
        piped = path == "-"
        self._file = open(0 if piped else path, "rb", closefd=not piped)  # noqa: SIM115
        self.size: int | None = os.fstat(self._file.fileno()).st_size or None
        self._done = 0
        try:
            self._text = self._decompressed(self._file)
        except OSError:
            self._file.close()
            raise

    def _decompressed(self, file: io.BufferedReader) -> io.BufferedReader:
        magic = file.peek(4)[:4]
        if magic[:2] == b"\x1f\x8b":
            return io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 20)
        if magic == b"\x28\xb5\x2f\xfd":
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            return io.BufferedReader(reader, 1 << 20)
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        # A limit: a file without newlines must not fill the memory. The planner refuses such a
        # piece for its length.
        return iter(lambda: self._text.readline(MAX_LINE_BYTES), b"")

    def position(self) -> int:
        """Bytes of the file read so far, compressed as they lie there."""
        return self._file.tell() if self.size else 0
