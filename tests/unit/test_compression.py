"""zstd frames."""

from __future__ import annotations

import tracemalloc

from context.compression import compress, decompress


def test_a_frame_takes_no_more_memory_than_it_has_bytes() -> None:
    data = b"0123456789" * 100_000
    tracemalloc.start()
    try:
        frame = compress(data)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decompress(frame) == data
    assert kept < len(frame) + (16 << 10) < len(data)
