"""Who waits in an `accept()`: the order, and a wake-up whose task is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from muxado.asyncio.wait_queue import WaitQueue

pytestmark = pytest.mark.anyio


async def waiting(queue: WaitQueue, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.ensure_future(queue.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    """Return which tasks are done once all that were woken have run."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_those_who_have_waited_longest_are_woken() -> None:
    queue = WaitQueue()
    tasks = await waiting(queue, 3)
    queue.wake(2)
    assert await done(tasks) == [True, True, False]
    queue.wake_all()
    assert await done(tasks) == [True, True, True]
    queue.wake()  # none is left
    assert await done(await waiting(queue, 1)) == [False]
    queue.wake_all()


async def test_a_task_that_is_cancelled_while_it_waits_takes_no_wake_up() -> None:
    queue = WaitQueue()
    tasks = await waiting(queue, 2)
    tasks[0].cancel()
    queue.wake()  # the cancelled task has not run yet
    assert await done(tasks) == [True, True]
    assert [task.cancelled() for task in tasks] == [True, False]
    tasks = await waiting(queue, 2)
    tasks[0].cancel()
    assert await done(tasks) == [True, False]
    queue.wake()
    assert await done(tasks) == [True, True]


async def test_a_task_that_is_cancelled_after_its_wake_up_hands_it_on() -> None:
    queue = WaitQueue()
    tasks = await waiting(queue, 3)
    queue.wake()
    tasks[0].cancel()
    assert await done(tasks) == [True, True, False]
    assert [task.cancelled() for task in tasks] == [True, False, False]
    queue.wake_all()
    assert await done(tasks) == [True, True, True]
