"""A real socket in the place of a stream, for libraries that need a file descriptor."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

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
        except OSError:
            stream.reset()
        finally:
            done.release()

    def to_socket() -> None:
        try:
            while data := stream.recv(COPY_SIZE):
                inside.sendall(data)
            inside.shutdown(socket.SHUT_WR)
        except OSError:
            stream.reset()
            with contextlib.suppress(OSError):
                inside.shutdown(socket.SHUT_RDWR)
        finally:
            done.acquire()  # the other direction is done too
            inside.close()
            stream.close()

    for copy in (to_stream, to_socket):
        name = f"muxado stream {stream.id} {copy.__name__}"
        threading.Thread(target=copy, name=name, daemon=True).start()
    return outside
