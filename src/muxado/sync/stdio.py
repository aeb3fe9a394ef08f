"""`serve_stdio`: the session of a process that `connect(command=...)` has started."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from ..config import Config
from ..endpoint import check_config, check_handler
from ..stdio import one_socket, take_stdio
from .connecting import server
from .session import Session

__all__ = ["serve_stdio"]

PIECE = 64 * 1024  # bytes that are copied at once


def serve_stdio(handler: Callable[[Session], object], *, config: Config | None = None) -> None:
    """Run `handler(session)` for the session over this process's standard input and output.

    It is the other end of `connect(command=...)`. From then on descriptors 0 and 1 are the
    session's: `print` and children write to standard error, and read nothing. They are not given
    back. The handler's return closes the session.

    Args:
        handler: a function.
        config: the session's settings.

    Raises:
        UsageError: the standard input and output are no pipes or sockets, or carry a session.
        Exception: what the handler raises, which aborts the session.
        RuntimeError: no thread can be started.
    """
    check_handler(handler)
    check_config(config)
    source, sink = take_stdio()
    if one_socket(source, sink):
        os.close(sink)
        _run(socket.socket(fileno=source), handler, config)
        return
    near, far = socket.socketpair()
    threading.Thread(target=_copy_in, args=(source, far), daemon=True).start()
    output = threading.Thread(target=_copy_out, args=(far, sink), daemon=True)
    output.start()
    try:
        _run(near, handler, config)
    finally:
        output.join((config or Config()).close_timeout)


def _run(sock: socket.socket, handler: Callable[[Session], object], config: Config | None) -> None:
    with server(sock, config=config) as session:
        handler(session)


def _copy_in(source: int, sock: socket.socket) -> None:
    """Copy from a pipe to a socket, and end its output."""
    with contextlib.suppress(OSError):
        while data := os.read(source, PIECE):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def _copy_out(sock: socket.socket, sink: int) -> None:
    """Copy from a socket to a pipe, and close the pipe."""
    with contextlib.suppress(OSError), os.fdopen(sink, "wb", 0) as pipe:
        while data := sock.recv(PIECE):
            while data:
                data = data[pipe.write(data) :]
