"""Event loops to run async tests on, and a time limit for each test."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

import anyio
import pytest

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]


def bound(item: pytest.Item, seconds: float) -> None:
    """Limit the time of an async test: the traceback of one that hangs shows where it waits."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = bounded(item.obj, seconds)


def bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwds: Any) -> None:
        with anyio.fail_after(seconds):
            await test(*args, **kwds)

    return run
