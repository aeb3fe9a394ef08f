"""Every event loop and every transport, for tests against two real endpoints."""

from __future__ import annotations

import asyncio
import functools
import inspect
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import muxado

from .certificates import Tls
from .transports import TRANSPORTS, Connect, Ends

# Seconds that a test, or a fixture's part of it, may take before it counts as hanging.
PATIENCE = 10

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]

NewPair = Callable[..., Awaitable[Ends]]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Bound the time of every async test: a wait that never ends names its line."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = bounded(item.obj)


def bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwds: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            await test(*args, **kwds)

    return run


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
async def no_tasks_left(anyio_backend: object) -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind; listed first, it looks last."""
    yield
    assert [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task)] == []


@pytest.fixture(scope="session")
def tls() -> Tls:
    return Tls()


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A place for a Unix socket, with a name short enough for every platform."""
    with tempfile.TemporaryDirectory(prefix="mux") as folder:
        yield str(Path(folder) / "s")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Connect:
    connect: Connect = request.param
    return connect


@pytest.fixture
async def new_pair(
    no_tasks_left: None, transport: Connect, tls: Tls, socket_path: str
) -> AsyncIterator[NewPair]:
    """Makes a client's and a server's session that are connected to each other.

    Its arguments are settings of both, as `Config` has them.
    """
    async with AsyncExitStack() as stack:

        async def new_pair(**settings: Any) -> Ends:
            config = muxado.Config(**settings)
            ends = await stack.enter_async_context(transport(config, tls, socket_path))
            stack.push_async_callback(end, ends)
            return ends

        yield new_pair


@pytest.fixture
async def session_pair(new_pair: NewPair) -> Ends:
    async with asyncio.timeout(PATIENCE):
        return await new_pair()


async def end(ends: Ends) -> None:
    async with asyncio.timeout(PATIENCE):
        for session in ends:
            session.abort()
            await session.wait_closed()
