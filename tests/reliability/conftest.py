"""Two real endpoints with a bad line between them, on every event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest

import muxado
from muxado import Config, Session
from tests.bounded import bound
from tests.patience import patience

from ..certificates import Tls
from ..fixtures import anyio_backend, no_tasks_left
from .relay import Relay

__all__ = ["anyio_backend", "no_tasks_left"]  # pytest looks for them here

# Seconds that a test may take before it counts as hanging.
PATIENCE = patience(20)
NONE: dict[str, Any] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    bound(item, PATIENCE)


@pytest.fixture(scope="package")
def quick_collection() -> Iterator[None]:
    """Spare what is there before the tests from being looked through after each of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
async def no_complaints(
    no_tasks_left: None, quick_collection: None, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """Fail a test after which the event loop complains, say of an error never retrieved."""
    yield
    # What was not retrieved is found out when it is collected.
    gc.collect()
    assert [
        entry for entry in caplog.records if entry.name == "asyncio" and entry.levelno > 30
    ] == []


class Line(NamedTuple):
    """A client's and a server's session, and the relay between them."""

    client: Session
    server: Session
    relay: Relay

    @property
    def ends(self) -> tuple[Session, Session]:
        return self.client, self.server


NewLine = Callable[..., Awaitable[Line]]


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def new_line(no_complaints: None, security: str, tls: Tls) -> AsyncIterator[NewLine]:
    """Makes two sessions with a relay between them.

    Its arguments are settings of both, as `Config` has them, or those of one in which it differs.
    """
    contexts = (tls.client, tls.server) if security == "tls" else (None, None)
    async with AsyncExitStack() as stack:

        async def new_line(
            *,
            of_client: dict[str, Any] = NONE,
            of_server: dict[str, Any] = NONE,
            **settings: Any,
        ) -> Line:
            config = Config(**settings | of_server)
            listener = await stack.enter_async_context(
                muxado.listen("127.0.0.1", 0, ssl=contexts[1], config=config)
            )
            relay = stack.enter_context(Relay(listener.addresses[0]))
            host, port = relay.address
            config = Config(**settings | of_client)
            client = await muxado.connect(host, port, ssl=contexts[0], config=config)
            line = Line(client, await listener.accept(), relay)
            stack.push_async_callback(end, line)
            return line

        yield new_line


async def end(line: Line) -> None:
    async with asyncio.timeout(PATIENCE):
        for session in line.ends:
            session.abort()
            await session.wait_closed()
