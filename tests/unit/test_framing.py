"""Frames on their way to be sealed: all of a block, or none."""

from __future__ import annotations

import zstandard

from context.adapters.framing import WORTH_IT_BYTES, Frames
from context.block import Block
from context.items import Batch


def batch(first: int, count: int = 2000, *, framed: bool = True) -> Batch:
    line = b'{"type":"t","source":"s","timestamp":1.0,"data":{}}\n'
    frame = zstandard.compress(line * count) if framed else None
    return Batch(first, count, 1.0, 1, line * count, frame=frame)


def test_a_blocks_frames_are_given_once_and_only_if_all_are_there() -> None:
    frames, batches = Frames(1 << 20), [batch(0), batch(2000), batch(4000)]
    for each in batches:
        frames.keep(each)
    assert len(batches[0].text) > WORTH_IT_BYTES
    first, rest = Block.of(batches[:2]).bounds, Block.of(batches[2:]).bounds
    assert frames.take(first) == (batches[0].frame, batches[1].frame)
    assert frames.take(first) == ()
    assert frames.take(Block.of([batch(3000), *batches[2:]][:1]).bounds) == ()
    assert frames.take(rest) == (batches[2].frame,)


def test_what_is_small_or_missing_makes_the_block_be_compressed_anew() -> None:
    frames = Frames(1 << 20)
    pair = [batch(0), batch(2000, framed=False)]
    small = [batch(8000), batch(10_000, 10)]
    for each in (*pair, *small):
        frames.keep(each)
    assert frames.take(Block.of(pair).bounds) == frames.take(Block.of(small).bounds) == ()


def test_no_frame_stays_of_blocks_that_are_sealed_without() -> None:
    small, large, later = batch(0, 10), batch(10), batch(2010)
    frames = Frames(len(large.frame or b"") + len(later.frame or b""))
    for each in (small, large):
        frames.keep(each)
    assert frames.take(Block.of([small, large]).bounds) == ()
    for each in (later, batch(4010)):  # both fit: nothing is left of the block before
        frames.keep(each)
    assert frames.take(Block.of([later]).bounds) == (later.frame,)


def test_the_oldest_are_let_go_beyond_the_bound() -> None:
    one = batch(0)
    assert one.frame
    frames = Frames(2 * len(one.frame))
    for first in (0, 2000, 4000):
        frames.keep(batch(first))
    assert frames.take(Block.of([one]).bounds) == ()
    assert frames.take(Block.of([batch(2000)]).bounds) == (one.frame,)
