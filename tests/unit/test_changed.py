"""Waiting for what comes into the log."""

from __future__ import annotations

import asyncio

from server.agent.changed import Changed


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_only_who_waits_for_this_goes_on() -> None:
    async def run() -> None:
        changed, newest = Changed(), 0
        first = asyncio.create_task(changed.wait_for(lambda: newest >= 1))
        second = asyncio.create_task(changed.wait_for(lambda: newest >= 2))
        await turns()
        for newest in (1, 2):  # noqa: B007 - the conditions look at it
            assert not second.done()
            changed.tell()
            await turns()
            assert first.done()
        assert second.done()
        await changed.wait_for(lambda: newest >= 2)  # holds already

    asyncio.run(run())


def test_the_next_change_is_not_an_earlier_one() -> None:
    async def run() -> None:
        changed = Changed()
        changed.tell()
        waiting = asyncio.create_task(changed.next())
        await turns()
        assert not waiting.done()
        changed.tell()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())


def test_who_gives_up_is_forgotten() -> None:
    async def run() -> None:
        changed, asked = Changed(), 0

        def condition() -> bool:
            nonlocal asked
            asked += 1
            return False

        waiting = asyncio.create_task(changed.next(condition))
        await turns()
        changed.tell()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        changed.tell()
        assert asked == 1

    asyncio.run(run())
