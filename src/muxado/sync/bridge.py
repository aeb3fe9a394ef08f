"""A real socket in the place of a stream, for libraries that need a file descriptor."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING

from ..base_stream import give_up
from ..errors import ErrorCode, StreamClosed

if TYPE_CHECKING:
    from .stream import Stream

COPY_SIZE = 64 * 1024


def bridge(stream: Stream) -> socket.socket:
    """Return a socket whose other end two daemon threads connect with `stream`."""
    stream.settimeout(None)
    outside, inside = socket.socketpair()
    done = threading.Semaphore(0)

    def to_stream() -> None:
        try:
            while data := inside.recv(COPY_SIZE):
                stream.sendall(data)
            stream.write_eof()
            if _hung_up(inside):
                stream.close()  # the socket is closed: nothing can read what the peer still sends
        except OSError:
            give_up(stream)
        finally:
            done.release()

    def to_socket() -> None:
        try:
            while data := stream.recv(COPY_SIZE):
                inside.sendall(data)
            inside.shutdown(socket.SHUT_WR)
        except StreamClosed:
            pass  # by to_stream, in order
        except OSError:
            give_up(stream)
            with contextlib.suppress(OSError):
                inside.shutdown(socket.SHUT_RDWR)
        finally:
            done.acquire()  # the other direction is done too
            inside.close()
            stream.close()

    threads = [
        threading.Thread(
            target=copy, name=f"muxado stream {stream.id} {copy.__name__}", daemon=True
        )
        for copy in (to_socket, to_stream)
    ]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as exc:
        give_up(stream, ErrorCode.INTERNAL_ERROR)
        outside.close()
        done.release()  # instead of to_stream
        if threads[0].ident is None:
            inside.close()
        raise OSError(errno.EAGAIN, f"no thread for the socket: {exc}") from exc
    return outside


def _hung_up(sock: socket.socket) -> bool:
    """Wait, after the end of its input, until the other end is closed or both directions are.

    Returns:
        whether that can be told apart from a half-close here: on Linux.
    """
    if sys.platform != "linux":
        return False
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP is always reported
    poll.poll()
    return True
