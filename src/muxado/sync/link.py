"""What carries a session's bytes: a socket that does not block, with TLS or a layer over it if any.

The driver says when; each call here does at once what can be done, under the session's lock. What
the socket does not take now is kept, and `wants_room` says so until it is out. A connection that
fails is reported to the driver, never raised: only what a signal's handler raises is.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from time import monotonic

from ..core import ABORT, CLOSE, HALF_CLOSE, CoreSession
from ..endpoint import tune
from ..front_end import WRITE_SIZE
from ..layers import Layer
from .locks import from_a_handler

# What a TLS socket says for "would block", besides BlockingIOError.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# TLS records that are read in one turn, after which what has come is reported.
MOST_RECORDS = 16


class SocketLink:
    """Moves the bytes between a core session and a socket.

    Attributes:
        sock: the socket.
        layer: what lies between the session and the socket; None if nothing does but TLS.
        secured: the socket if it is one of TLS, else None.
        family: the socket's address family.
    """

    __slots__ = (
        "_channel",
        "_core",
        "_end_unsent",
        "_lose",
        "_unsent",
        "family",
        "layer",
        "secured",
        "sock",
    )

    def __init__(
        self,
        core: CoreSession,
        sock: socket.socket,
        layer: Layer | None,
        lose: Callable[[BaseException | None], None],
    ) -> None:
        """Make a link; from now on the socket does not block.

        Args:
            core: whose bytes it carries.
            sock: the socket, connected.
            layer: what lies between, if anything does.
            lose: called when the socket is of no more use, with the error if there was one.
        """
        self._core = core
        self._lose = lose
        self.sock: socket.socket = sock
        self.layer: Layer | None = layer
        self.secured: ssl.SSLSocket | None = sock if isinstance(sock, ssl.SSLSocket) else None
        self.family: socket.AddressFamily = sock.family
        self._channel: socket.socket | Layer = layer or sock  # what is read and written
        self._unsent = memoryview(b"")
        self._end_unsent = False  # that of TLS or of the layer: the socket had no room for it
        sock.setblocking(False)
        tune(sock)

    # Out

    def wants_room(self) -> bool:
        """Return whether something waits for the socket to take more."""
        return bool(self._unsent) or self._end_unsent

    def send(self) -> None:
        """Send what the socket takes, and end the output if the core says so."""
        core = self._core
        try:
            while True:
                if not self._unsent:
                    self._unsent = memoryview(core.data_to_send(monotonic(), WRITE_SIZE))
                    if not self._unsent:
                        break
                self._unsent = self._unsent[self._channel.send(self._unsent) :]
        except WOULD_BLOCK:
            pass
        except OSError as exc:
            if from_a_handler(exc):
                raise
            # What the peer sent before it left can still be read.
            try:
                while count := self._channel.recv_into(core.receive_buffer()):
                    core.bytes_received(count, monotonic())
            except OSError as another:
                if from_a_handler(another):
                    raise
            self._lose(exc)
            return
        self._end_output()

    def _end_output(self) -> None:
        closing = self._core.closing
        step = closing.output_step()
        try:
            if step == ABORT:
                if self.layer is not None:
                    self.layer.abort()
                self._lose(None)
            elif step == CLOSE and not self._unsent:
                closing.end_output()
                self._lose(None)
            elif step == HALF_CLOSE and not self._unsent:
                # Reading goes on, since a close with unread input would reset the connection, and
                # destroy what the peer has not read yet.
                closing.end_output()
                self._half_close()
            elif self._end_unsent:
                self._half_close()
        except OSError as exc:
            if from_a_handler(exc):
                raise
            self._lose(exc)

    def _half_close(self) -> None:
        self._end_unsent = False
        ending = self.layer or self.secured
        if ending is not None:
            try:
                ending.unwrap()  # TLS's sends close_notify
            except ssl.SSLWantWriteError:
                self._end_unsent = True
                return
            except ssl.SSLError:
                pass  # the peer's own is not here yet, or comes after data
        if self.layer is not None:
            return  # the peer closes the connection
        # From here on a TLS socket gives what comes undecrypted.
        self.sock.shutdown(socket.SHUT_WR)

    # In

    def reads(self) -> bool:
        """Return whether the socket is read; input that has ended stays readable for ever."""
        return self._core.wants_input and not self._core.ledger.eof_received

    def decrypted(self) -> bool:
        """Return whether there are bytes to read that no selector sees."""
        if not self.reads():
            return False
        if self.layer is not None:
            return self.layer.pending()
        return self.secured is not None and self.secured.pending() > 0

    def read(self) -> None:
        """Take in what has come, as much as one turn should have."""
        core = self._core
        try:
            count = self._channel.recv_into(core.receive_buffer())
            if self.secured is not None or self.layer is not None:
                # Each read decrypts one record, of 16 KiB at most.
                for _ in range(MOST_RECORDS):
                    if not count or core.paused or not core.wants_input:
                        break
                    core.bytes_received(count, monotonic())
                    count = self._channel.recv_into(core.receive_buffer())
        except WOULD_BLOCK:
            return
        except OSError as exc:
            self._lose(exc)
            return
        if count:
            core.bytes_received(count, monotonic())
            return
        core.receive_eof(monotonic())

    def close(self) -> None:
        """Close the socket; no other call may follow."""
        self.sock.close()
        self._lose = _ignore  # or the link and its driver would keep each other


def _ignore(exc: BaseException | None) -> None:
    pass
