"""`serve_stdio`: the session of a process that `connect(command=...)` has started."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable

import trio

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
        handler: an async function.
        config: the session's settings.

    Raises:
        UsageError: the standard input and output are no pipes or sockets, or carry a session.
        Exception: what the handler raises, which aborts the session.
    """
    check_handler(handler)
    check_config(config)
    source, sink = take_stdio()
    transport: trio.abc.Stream
    if one_socket(source, sink):
        os.close(sink)
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=source)))
    else:
        output, input_ = trio.lowlevel.FdStream(sink), trio.lowlevel.FdStream(source)
        transport = trio.StapledStream(output, input_)
    async with server(transport, config=config) as session:
        await handler(session)
