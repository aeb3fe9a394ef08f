"""One way to use the three front ends, so that a scenario is written once.

A `Side` is one end of a session, used from a plain test function: every call blocks, none for
longer than `PATIENCE`. Errors are muxado's own; the side for trio checks that they came as the
cause of the right error of trio's.
"""

from __future__ import annotations

import abc
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import muxado
from muxado import CloseReason, Config, ErrorCode, SessionStats
from muxado.wire import FORMATS, Rules
from tests.patience import patience

# Seconds that any call may take before it counts as hanging.
PATIENCE = patience(10)

# A timeout that is meant to run out: the call is known to have to wait.
SHORT = 0.05


class StreamSide(abc.ABC):
    """A stream."""

    id: int
    type: int | None

    @abc.abstractmethod
    def read(self, n: int = 65536, timeout: float = PATIENCE) -> bytes:
        """Return what has come, at most `n` bytes; b"" at the end."""

    @abc.abstractmethod
    def write(self, data: bytes, timeout: float = PATIENCE) -> None: ...

    @abc.abstractmethod
    def write_eof(self) -> None: ...

    @abc.abstractmethod
    def close(self) -> None: ...

    @abc.abstractmethod
    def reset(self, code: int = ErrorCode.STREAM_CANCELLED) -> None: ...

    @abc.abstractmethod
    def wait_reset(self) -> int | None: ...

    @abc.abstractmethod
    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None: ...

    @abc.abstractmethod
    def write_nowait(self, data: bytes, callback: Callable[[], object] | None = None) -> bool: ...

    @abc.abstractmethod
    def on_end(self, callback: Callable[[], object]) -> None: ...

    def read_exactly(self, n: int) -> bytes:
        """Return `n` bytes, or fewer at the end."""
        pieces = []
        while n and (data := self.read(n)):
            pieces.append(data)
            n -= len(data)
        return b"".join(pieces)

    def read_all(self) -> bytes:
        """Return everything up to the end."""
        pieces = []
        while data := self.read(1 << 20):
            pieces.append(data)
        return b"".join(pieces)

    def exchange(self, request: bytes) -> bytes:
        """Send a request and the end, and return the whole reply."""
        self.write(request)
        self.write_eof()
        return self.read_all()


class Side(abc.ABC):
    """A session."""

    def __init__(self) -> None:
        # Streams live as long as their session: a test need not close each one.
        self._kept: list[StreamSide] = []

    def open(
        self, *, type: int | None = None, priority: int = 0, eager: bool = False
    ) -> StreamSide:
        self._kept.append(self._open(type, priority, eager))
        return self._kept[-1]

    def accept(self, timeout: float = PATIENCE) -> StreamSide:
        self._kept.append(self._accept(timeout))
        return self._kept[-1]

    def drop_streams(self) -> None:
        """Keep no stream any more."""
        self._kept.clear()

    @abc.abstractmethod
    def _open(self, type: int | None, priority: int, eager: bool) -> StreamSide: ...

    @abc.abstractmethod
    def _accept(self, timeout: float) -> StreamSide: ...

    @abc.abstractmethod
    def iterate(self) -> list[int]:
        """Iterate over the session to its end, close its streams and return their ids."""

    @abc.abstractmethod
    def serve(self, handler: Callable[[StreamSide], None], limit: int | None = None) -> None:
        """Run a blocking handler for each stream, until the session ends."""

    @abc.abstractmethod
    def ping(self) -> float: ...

    @abc.abstractmethod
    def go_away(self, code: int = 0, debug: bytes = b"") -> None: ...

    @abc.abstractmethod
    def on_draining(self, callback: Callable[[], object]) -> None: ...

    @abc.abstractmethod
    def on_stream(self, callback: Callable[[Any], object] | None) -> None:
        """Have a function called with the streams, as the front end has them."""

    @abc.abstractmethod
    def shutdown(self, timeout: float | None = PATIENCE) -> None: ...

    @abc.abstractmethod
    def close(self) -> None: ...

    @abc.abstractmethod
    def wait_closed(self) -> CloseReason: ...

    @abc.abstractmethod
    def abort(self, code: int = 2) -> None: ...

    @abc.abstractmethod
    def stats(self) -> SessionStats: ...

    @property
    @abc.abstractmethod
    def config(self) -> Config: ...

    @property
    def rules(self) -> Rules:
        """The rules of its wire."""
        return FORMATS[self.config.wire].rules

    def seen(self, code: int) -> int:
        """Return the code by which its peer sees a reset with this one."""
        return code if self.rules.codes else ErrorCode.STREAM_RESET

    @property
    @abc.abstractmethod
    def closed(self) -> bool: ...

    @property
    @abc.abstractmethod
    def close_reason(self) -> CloseReason | None: ...


class ListenerSide(abc.ABC):
    """A listener."""

    port: int

    @abc.abstractmethod
    def accept(self) -> Side: ...


class FrontEnd(abc.ABC):
    """A front end, with the event loop that it needs."""

    name: str

    @abc.abstractmethod
    def connect(
        self, port: int, tls: ssl.SSLContext | None, config: Config
    ) -> AbstractContextManager[Side]:
        """Dial a session on this host."""

    @abc.abstractmethod
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> AbstractContextManager[ListenerSide]:
        """Listen on this host, or on a socket of the caller's."""

    @abc.abstractmethod
    def serve(self, tls: ssl.SSLContext | None) -> AbstractContextManager[int]:
        """Run a server that echoes every stream, and give its port."""

    @abc.abstractmethod
    def run(self) -> AbstractContextManager[object]:
        """Run the event loop."""


def check_family(exc: BaseException) -> None:
    """See that an error can be caught as those of the standard library's sockets are."""
    if isinstance(exc, muxado.SessionError | muxado.StreamError):
        assert isinstance(exc, OSError), exc


def reason_by_peer(exc: Any) -> bool:
    """Return whether the other side is what an error speaks of."""
    if isinstance(exc, muxado.StreamReset):
        return exc.by_peer
    if isinstance(exc, muxado.StreamClosed):
        return False
    assert isinstance(exc, muxado.SessionError)
    return exc.reason is not None and exc.reason.by_peer
