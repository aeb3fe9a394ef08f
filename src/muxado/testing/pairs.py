"""A pair of connected sessions for each front end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from .. import asyncio as muxado_asyncio
from .. import sync as muxado_sync
from ..config import Config

if TYPE_CHECKING:
    from .. import trio as muxado_trio

__all__ = ["asyncio_pair", "sync_pair", "trio_pair"]


@asynccontextmanager
async def asyncio_pair(
    config: Config | None = None, *, server_config: Config | None = None
) -> AsyncIterator[tuple[muxado_asyncio.Session, muxado_asyncio.Session]]:
    """Connect two sessions in the running event loop, over a pair of sockets.

    Args:
        config: the settings of both.
        server_config: the server's, if they differ; the window and `typed` must not.
    """
    near, far = socket.socketpair()
    client = muxado_asyncio.client(*await asyncio.open_connection(sock=near), config=config)
    server = muxado_asyncio.server(
        *await asyncio.open_connection(sock=far), config=server_config or config
    )
    async with client, server:
        yield client, server


@contextmanager
def sync_pair(
    config: Config | None = None, *, server_config: Config | None = None
) -> Iterator[tuple[muxado_sync.Session, muxado_sync.Session]]:
    """Connect two sessions for threads, over a pair of sockets.

    Args:
        config: the settings of both.
        server_config: the server's, if they differ; the window and `typed` must not.
    """
    near, far = socket.socketpair()
    client = muxado_sync.client(near, config=config)
    server = muxado_sync.server(far, config=server_config or config)
    with client, server:
        yield client, server


@asynccontextmanager
async def trio_pair(
    config: Config | None = None, *, server_config: Config | None = None
) -> AsyncIterator[tuple[muxado_trio.Session, muxado_trio.Session]]:
    """Connect two sessions in a trio program, over trio's `memory_stream_pair()`.

    The sessions go by trio's clock, so a `trio.testing.MockClock` works.

    Args:
        config: the settings of both.
        server_config: the server's, if they differ; the window and `typed` must not.
    """
    from trio.testing import memory_stream_pair

    from .. import trio as muxado_trio

    near, far = memory_stream_pair()
    async with (
        muxado_trio.client(near, config=config) as client,
        muxado_trio.server(far, config=server_config or config) as server,
    ):
        yield client, server
