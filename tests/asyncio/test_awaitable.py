"""What `connect`, `serve` and `listen` return, over something that tells what is done to it."""

from __future__ import annotations

import asyncio
import gc
from types import TracebackType
from typing import Self

import pytest

from muxado.asyncio.awaitable import AwaitableContext, can_wait


class Door:
    """Something that can be opened, entered and left."""

    def __init__(self) -> None:
        self.entered = 0
        self.left: list[type[BaseException] | None] = []

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.left.append(exc_type)


def opening(door: Door) -> AwaitableContext[Door]:
    async def start() -> Door:
        await asyncio.sleep(0)
        return door

    return AwaitableContext("open_door", start)


def test_awaited_it_opens_and_enters_nothing() -> None:
    async def main() -> None:
        door = Door()
        assert await opening(door) is door
        assert (door.entered, door.left) == (0, [])

    asyncio.run(main())


def test_entered_it_opens_and_closes_with_the_block_also_after_an_error() -> None:
    async def main() -> None:
        door = Door()
        async with opening(door) as entered:
            assert entered is door
            assert (door.entered, door.left) == (1, [])
        with pytest.raises(ValueError, match="inside"):
            async with opening(door):
                raise ValueError("inside")
        assert (door.entered, door.left) == (2, [None, ValueError])

    asyncio.run(main())


def test_what_is_asked_of_it_before_says_to_await_it() -> None:
    async def main() -> None:
        context = opening(Door())
        with pytest.raises(AttributeError, match=r"open_door\(\) gives an awaitable.*'entered'"):
            context.entered  # noqa: B018
        await context

    asyncio.run(main())


def test_dropped_it_warns_as_a_coroutine_does() -> None:
    def drop() -> None:
        opening(Door())
        gc.collect()

    with pytest.warns(RuntimeWarning, match=r"open_door\(\) was never awaited"):
        drop()


def test_a_block_may_wait_inside_of_a_loop_only() -> None:
    async def main() -> bool:
        return can_wait()

    assert asyncio.run(main())
    assert not can_wait()
