"""What `connect`, `serve` and `listen` return: await it, or enter it with `async with`."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar


class Enterable(Protocol):
    """An async context manager that gives itself."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


T = TypeVar("T", bound=Enterable)


def can_wait() -> bool:
    """Return whether a block that is left may wait for anything.

    It can't where its coroutine is destroyed outside of the loop, as those of the tasks are that
    were pending when their loop was closed.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class AwaitableContext(Generic[T]):
    """Opens something when awaited; entered, opens it and closes it at the end of the block.

    If it is dropped before either, it warns as a coroutine does. An attribute of what it opens,
    asked of it, raises an error that says to await it first.
    """

    __slots__ = ("_call", "_opened", "_start", "_started")

    def __init__(self, call: str, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call
        self._start = start
        self._started = False
        self._opened: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        self._started = True
        return self._start().__await__()

    async def __aenter__(self) -> T:
        self._started = True
        self._opened = await self._start()
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._opened is not None
        await self._opened.__aexit__(exc_type, exc, traceback)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{self._call}() gives an awaitable, which has no {name!r}: await it first, or use it"
            " with `async with`"
        )

    def __del__(self) -> None:
        if not self._started:
            message = f"{self._call}() was never awaited"
            warnings.warn(message, RuntimeWarning, stacklevel=2, source=self)
