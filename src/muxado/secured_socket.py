"""TLS over a socket that does not block, or over TLS over one.

One system call brings several records and one takes several away.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Protocol

from .layers import Layer
from .secured import NOTHING, Secured

__all__ = ["SecuredSocket"]

# Bytes that one system call may bring.
READ_SIZE = 256 * 1024


class Raw(Protocol):
    """What carries the encrypted bytes.

    Calls that can't be done yet raise `BlockingIOError`; a `SecuredSocket` says what its own raise.
    """

    def recv(self, size: int, /) -> bytes:
        """Return some bytes, b"" at the end."""
        ...

    def send(self, data: memoryview, /) -> int:
        """Send some bytes; return how many."""
        ...


class SecuredSocket(Layer):
    """TLS over a socket. Its methods are those of an `SSLSocket` that doesn't block.

    Attributes:
        object: what knows the certificates and the like.
    """

    def __init__(
        self, raw: Raw, context: ssl.SSLContext, *, server_side: bool, name: str | None = None
    ) -> None:
        self.info: dict[str, object] = {}
        self._raw = raw
        self._secured = Secured(context, server_side=server_side, name=name)
        self.object: ssl.SSLObject = self._secured.object
        self._unsent = NOTHING  # encrypted
        self._ended = False  # by `unwrap`
        self._more = False  # there may be more to read that no selector sees
        self._taken = 0  # of what `send` was given, encrypted, until all of it is sent

    def do_handshake(self) -> None:
        """Go on with the handshake.

        Raises:
            SSLWantReadError: the socket has to bring more.
            SSLWantWriteError: the socket has to take more.
        """
        while True:
            try:
                done = self._secured.do_handshake()
            except ssl.SSLError:
                with suppress(OSError):  # the alert goes out at once or not at all
                    self._flush()
                raise
            self._flush()
            if done:
                self._look()
                return
            try:
                self._receive()
            except BlockingIOError:
                raise ssl.SSLWantReadError from None

    def recv(self, size: int) -> bytes:
        """Return some bytes, decrypted, b"" at the end; it raises as `recv_into` does."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def recv_into(self, buffer: memoryview) -> int:
        """Decrypt what has come into a buffer, as much as it holds; return 0 at the end.

        After `unwrap` what comes is given undecrypted: only its end is of interest.

        Raises:
            BlockingIOError: nothing has come.
        """
        if self._ended:
            data = self._raw.recv(min(len(buffer), READ_SIZE))
            buffer[: len(data)] = data
            return len(data)
        self._more = False
        while True:
            count = self._secured.read_into(buffer)
            if count or self._secured.ended:
                self._more = count > 0
                return count
            self._receive()

    def send(self, data: memoryview) -> int:
        """Encrypt all of some data, and send it; return its size.

        Raises:
            SSLWantWriteError: the socket took a part. The same data must be given again.
        """
        if not self._taken:
            self._queue(self._secured.encrypt(data))
            self._taken = len(data)
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def unwrap(self) -> None:
        """Send a close_notify.

        Raises:
            SSLWantWriteError: the socket has to take more; call again.
        """
        if not self._ended:
            self._ended = True
            self._secured.unwrap()
        self._flush()

    def pending(self) -> bool:
        return self._more

    def abort(self) -> None:
        """Say nothing: the end of the connection will do."""

    @property
    def agreed(self) -> str | None:
        return self.object.selected_alpn_protocol()

    def _look(self) -> None:
        """Take note of what the handshake tells."""
        secured = self.object
        self.info = {
            "ssl_object": secured,
            "sslcontext": secured.context,
            "peercert": secured.getpeercert(),
            "cipher": secured.cipher(),
            "compression": secured.compression(),
        }

    def _receive(self) -> None:
        self._secured.feed(self._raw.recv(READ_SIZE))

    def _queue(self, data: bytes) -> None:
        """Take over what was encrypted, to be sent."""
        if data:
            self._unsent = memoryview(b"".join([self._unsent, data]) if self._unsent else data)

    def _flush(self) -> None:
        self._queue(self._secured.output())
        try:
            while self._unsent:
                self._unsent = self._unsent[self._raw.send(self._unsent) :]
        except BlockingIOError:
            raise ssl.SSLWantWriteError from None
