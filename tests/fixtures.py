"""Every event loop and every transport, for tests against two real endpoints.

The conftest of a folder imports the fixtures that its tests use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

import muxado
from tests.bounded import LOOPS, bound
from tests.patience import patience

from .certificates import Tls
from .transports import TRANSPORTS, Connect, Ends

# Seconds that a test, or a fixture's part of it, may take before it counts as hanging.
PATIENCE = patience(10)

NewPair = Callable[..., Awaitable[Ends]]


def pytest_itemcollected(item: pytest.Item) -> None:
    bound(item, PATIENCE)


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
async def no_tasks_left(anyio_backend: object) -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind; listed first, it looks last."""
    yield
    assert [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task)] == []


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
