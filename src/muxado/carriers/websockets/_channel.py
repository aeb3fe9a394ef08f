"""A WebSocket over a socket that does not block, for the front ends for threads and for trio."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Protocol

from ...layers import Layer
from ...secured_socket import SecuredSocket
from ._conversation import Conversation

__all__ = ["Channel", "Raw"]

READ_SIZE = 64 * 1024


class Raw(Protocol):
    """A socket that does not block, or TLS over one."""

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: memoryview, /) -> int: ...


class Channel(Layer):
    """Carries a session's bytes in the messages of a WebSocket."""

    def __init__(self, raw: Raw, conversation: Conversation) -> None:
        self.info: dict[str, object] = conversation.info
        self._raw = raw
        self._conversation = conversation
        self._received = memoryview(b"")  # the session's
        self._end_told = False
        self._unsent = memoryview(b"")
        self._taken = 0  # of what `send` was given, until all of it is out

    @property
    def agreed(self) -> str | None:
        return self._conversation.agreed

    def shake_hands(self) -> None:
        """Go on with the handshake.

        Raises:
            HandshakeRefused: it has failed.
            BlockingIOError, SSLWantReadError, SSLWantWriteError: call again, as for a `Layer`.
        """
        conversation = self._conversation
        self._flush()
        while not conversation.opened:
            if conversation.refusal is not None:
                raise conversation.refusal
            self._receive()
            self._flush()

    def recv_into(self, buffer: memoryview) -> int:
        conversation = self._conversation
        while not self._received:
            if conversation.failure is not None:
                raise conversation.failure
            if conversation.ended:
                self._end_told = True
                return 0
            self._receive()
            with suppress(OSError):  # what has no room leaves with the next message
                self._flush()
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        self._received = self._received[count:]
        return count

    def send(self, data: memoryview) -> int:
        if not self._taken:
            self._conversation.send(bytes(data))
            self._taken = len(data)
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def pending(self) -> bool:
        below = self._raw if isinstance(self._raw, ssl.SSLSocket | SecuredSocket) else None
        if self._received or (below is not None and below.pending()):
            return True
        conversation = self._conversation
        return conversation.failure is not None or (conversation.ended and not self._end_told)

    def unwrap(self) -> None:
        self._conversation.close()
        self._flush()

    def abort(self) -> None:
        with suppress(OSError):
            self._conversation.abort()
            self._flush()

    def _receive(self) -> None:
        data = self._raw.recv(READ_SIZE)
        if data:
            received = self._conversation.receive(data, bool(self._unsent))
            self._received = memoryview(received)
        else:
            self._conversation.receive_eof()

    def _flush(self) -> None:
        data, _ = self._conversation.data_to_send()
        if data:
            self._unsent = memoryview(b"".join([self._unsent, data]) if self._unsent else data)
        try:
            while self._unsent:
                self._unsent = self._unsent[self._raw.send(self._unsent) :]
        except BlockingIOError:
            raise ssl.SSLWantWriteError from None
