"""Compressed lines of batches that wait to be sealed, so that nothing is compressed twice."""

from __future__ import annotations

import threading
from collections import OrderedDict

from context.block import Bounds
from context.items import Batch

WORTH_IT_BYTES = 16 << 10  # of lines; many small frames take more room than one large one


class Frames:
    """Frames by the offset of their first item; for any number of threads.

    Whatever is missing, such as after a start, only costs compressing again.
    """

    def __init__(self, max_bytes: int) -> None:
        """The oldest are let go beyond `max_bytes`."""
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[int, tuple[int, int, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, batch: Batch) -> None:
        """Keep a batch's frame, where it has one that is large enough."""
        if batch.frame is None or len(batch.text) < WORTH_IT_BYTES:
            return
        with self._lock:
            self._kept[batch.first_offset] = batch.count, len(batch.text), batch.frame
            self._bytes += len(batch.frame)
            while self._bytes > self._max_bytes:
                _, (_, _, oldest) = self._kept.popitem(last=False)
                self._bytes -= len(oldest)

    def take(self, bounds: Bounds) -> tuple[bytes, ...]:
        """The frames that make up a block, () where one of them is missing.

        Those and all before them are let go: blocks are sealed in order.
        """
        found, size, offset = [], 0, bounds.first_offset
        with self._lock:
            while self._kept:
                first, (count, plain, frame) = next(iter(self._kept.items()))
                if first + count - 1 > bounds.last_offset:
                    break
                del self._kept[first]
                self._bytes -= len(frame)
                if first == offset:
                    found.append(frame)
                    size, offset = size + plain, offset + count
        whole = offset == bounds.last_offset + 1 and size == bounds.nbytes
        return tuple(found) if whole else ()
