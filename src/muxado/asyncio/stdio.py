"""`serve_stdio`: the session of a process that `connect(command=...)` has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from io import FileIO

from ..config import Config
from ..endpoint import check_config, check_handler
from ..stdio import one_socket, take_stdio
from .connecting import server
from .session import Session

__all__ = ["open_pipes", "open_reader", "open_writer", "serve_stdio"]


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
    reader, writer = await open_pipes(*take_stdio())
    async with server(reader, writer, config=config) as session:
        await handler(session)


async def open_pipes(source: int, sink: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a reader and a writer over two descriptors, which belong to them from then on.

    Args:
        source: what is read: a pipe, a socket or a terminal.
        sink: what is written; it may be the same socket.
    """
    if one_socket(source, sink):
        os.close(sink)
        sock = socket.socket(fileno=source)
        if sock.family == socket.AF_UNIX:
            return await asyncio.open_unix_connection(sock=sock)
        return await asyncio.open_connection(sock=sock)
    with contextlib.ExitStack() as on_failure:
        output = on_failure.enter_context(os.fdopen(sink, "wb", 0))
        reader, transport = await open_reader(source)
        on_failure.callback(transport.close)
        writer = await open_writer(output)
        on_failure.pop_all()
    return reader, writer


async def open_reader(source: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Return a reader of a descriptor, which belongs to it from then on, and its transport."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
    )
    return reader, transport


async def open_writer(output: FileIO) -> asyncio.StreamWriter:
    """Return a writer to an unbuffered file, which belongs to it from then on."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), output
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
