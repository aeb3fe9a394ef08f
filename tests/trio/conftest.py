"""Running async tests under trio, each within a bounded time."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.patience import patience

# Seconds that a test may take before it counts as hanging.
PATIENCE = patience(10)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run async tests under trio, and bound their time: a wait that never ends names its line."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = run_by_trio(item.obj)


def run_by_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwds: Any) -> None:
        async def bounded() -> None:
            with trio.fail_after(PATIENCE):
                await test(*args, **kwds)

        trio.run(bounded)

    return run
