"""`serve_stdio`: the session of a process that `connect(command=...)` has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

from ..config import Config
from ..endpoint import check_config, check_handler
from ..stdio import one_socket, take_stdio
from .connecting import server
from .session import Session

__all__ = ["serve_stdio"]


async def serve_stdio(
    handler: Callable[[Session], Awaitable[object]], *, config: Config | None = None
) -> None:
    """Run `handler(session)` for the session over this process's standard input and output.

    It is the other end of `connect(command=...)`. From then on descriptors 0 and 1 are the
    session's: `print` and children write to standard error, and read nothing. They are not given
    back. The handler's return closes the session; cancelled, this aborts it.

    Args:
        handler: a coroutine function.
        config: the session's settings.

    Raises:
        UsageError: the standard input and output are no pipes or sockets, or carry a session.
        Exception: what the handler raises, which aborts the session.
    """
    check_handler(handler)
    check_config(config)
    reader, writer = await _open(*take_stdio())
    async with server(reader, writer, config=config) as session:
        await handler(session)


async def _open(source: int, sink: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if one_socket(source, sink):
        os.close(sink)
        sock = socket.socket(fileno=source)
        if sock.family == socket.AF_UNIX:
            return await asyncio.open_unix_connection(sock=sock)
        return await asyncio.open_connection(sock=sock)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    with contextlib.ExitStack() as on_failure:
        output = on_failure.enter_context(os.fdopen(sink, "wb", 0))
        opened = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
        )
        on_failure.callback(opened[0].close)
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), output
        )
        on_failure.pop_all()
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
