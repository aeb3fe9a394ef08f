"""A peer that reads slowly and talks all the while, on a bare socket or on bare TLS."""

from __future__ import annotations

import select
import socket
import ssl
from time import monotonic
from typing import NamedTuple

from muxado import ErrorCode
from muxado.wire import MUXADO_V2
from muxado.wire.codec import DATA
from tests.frames import FrameReader

from .sides import PATIENCE

READ_SIZE = 64 * 1024
RATE = 16 * 1024 * 1024  # bytes a second that it reads
PIECE = 1024

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Outcome(NamedTuple):
    """What has come, and how it ended.

    Attributes:
        data: of the session's first stream.
        end: "end" for an orderly one, which over TLS takes a close_notify; else what it was.
    """

    data: bytes
    end: str


class SlowPeer:
    """Takes one connection, as the session's server.

    Args:
        context: its TLS, None for none.
        talk: what it says without end: "credit", or "bulk", which is streams with data in them.
    """

    def __init__(self, context: ssl.SSLContext | None, talk: str) -> None:
        self._context = context
        self._talk_about = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._next_stream = 2
        self._answers: list[bytes] = []
        self._reader = FrameReader()
        self._seen = 0

    def run(self) -> Outcome:
        """Read slowly and write as fast as can be, until the connection ends."""
        with self._listener:
            self._listener.settimeout(PATIENCE)
            sock, _ = self._listener.accept()
        if self._context is not None:
            sock.settimeout(PATIENCE)
            sock = self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        with sock:
            sock.setblocking(False)
            end = self._talk(sock)
        data = b"".join(frame.body for frame in self._reader.frames if frame.stream_id == 3)
        return Outcome(data, end)

    def _talk(self, sock: socket.socket) -> str:
        started = next_read = monotonic()
        unsent = memoryview(b"")
        writing = True
        while monotonic() < started + PATIENCE:
            if writing:
                unsent = unsent or memoryview(self._say())
                try:
                    unsent = unsent[sock.send(unsent) :]
                except WOULD_BLOCK:
                    pass
                except OSError:
                    writing = False  # whatever was sent to us can still be read, or is lost
            pause = next_read - monotonic()
            if pause > 0:
                # The rate of the reader: the time is what the tests are about.
                select.select([], [sock] if writing and not unsent else [], [], pause)
                continue
            try:
                data = sock.recv(READ_SIZE)
            except WOULD_BLOCK:
                select.select([sock], [], [], 0.001)
                continue
            except OSError as exc:
                return repr(exc)
            if not data:
                return "end"
            next_read = monotonic() + len(data) / RATE
            self._take(data)
        return "never"

    def _say(self) -> bytes:
        encoder = MUXADO_V2.encoder
        if self._answers:
            said = b"".join(self._answers)
            self._answers.clear()
        elif self._talk_about == "credit":
            said = encoder.credit(3, 1) * 10
        else:
            said = self._stream(PIECE)
        return said

    def _stream(self, size: int) -> bytes:
        header = MUXADO_V2.encoder.data_header(self._next_stream, size, True, False)
        self._next_stream += 2
        return header + bytes(size)

    def _take(self, data: bytes) -> None:
        self._reader.feed(data)
        for frame in self._reader.frames[self._seen :]:
            if frame.kind == DATA and frame.stream_id == 1:
                self._answers.append(MUXADO_V2.encoder.reset(1, ErrorCode.STREAM_CLOSED))
        self._seen = len(self._reader.frames)
