"""TLS without I/O: encrypted bytes come and go by calls, through two `ssl.MemoryBIO`.

A connection that is idle keeps little: see `RECORD`. asyncio's own TLS has a buffer of 256 KiB for
each, and as much again in its `MemoryBIO` after bulk.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress

# A MemoryBIO keeps the memory of the most that it has ever held. So what comes goes into it record
# by record, and what is sent is cut into records of this size, the longest that there are. Shorter
# ones would cost 12 % more processor time in bulk, at 10 KiB and eight streams.
RECORD: int = 16 * 1024

HEADER: int = (
    5  # bytes of a record before its payload: its kind, two of the version, two of the length
)
KINDS: range = range(20, 24)
MAJOR: int = 3  # the first byte of every version
LONGEST: int = 16 * 1024 + 2048

NOTHING: memoryview = memoryview(b"")


class Secured:
    """One end of a TLS connection.

    Attributes:
        object: what knows the certificates and the like.
        ended: whether the peer's end was read, with a close_notify or without.
    """

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None
    ) -> None:
        """Begin with nothing said.

        Args:
            context: the settings.
            server_side: which end it is.
            name: the name that the server's certificate must have, for a client that checks it.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object: ssl.SSLObject = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=name
        )
        self.ended: bool = False
        # It is given a buffer and so returns a number, which its types don't know.
        self._read_into: Callable[[int, memoryview], int]
        self._read_into = self.object.read  # type: ignore[assignment]
        self._received = NOTHING  # what was not decrypted yet
        self._missing = 0  # bytes of the record whose beginning is in the MemoryBIO
        self._more = False  # that record may hold more than was read
        self._eof = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take in encrypted bytes, b"" for the end, once what was fed before is decrypted.

        They are not copied, so they must stay as they are until they are decrypted.
        """
        if not len(data):
            self._eof = True
            self._incoming.write_eof()
        elif self._received:  # a part of a header
            self._received = memoryview(bytes(self._received) + data)
        else:
            self._received = memoryview(data)

    def keep(self) -> bool:
        """Copy what is not decrypted yet, so that what was fed may change.

        Returns:
            Whether there is more to read, if only the end.
        """
        if not self._received.readonly:
            self._received = memoryview(bytes(self._received))
        return self._more or self._eof or len(self._received) >= HEADER

    def do_handshake(self) -> bool:
        """Go on with the handshake; return whether it is done.

        Raises:
            ssl.SSLError: it failed; `output` returns the alert that tells the peer why.
        """
        while True:
            try:
                self.object.do_handshake()
                return True
            except ssl.SSLWantReadError:
                if not self._next_record():
                    return False

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into a buffer, as much as it holds.

        Returns:
            How many bytes; 0 if more must be fed first, or at the end.

        Raises:
            ssl.SSLError: what came can't be decrypted, or is the peer's alert.
        """
        count, size = 0, len(buffer)
        while count < size and not self.ended:
            if not self._more and not self._next_record():
                self.ended = self._eof
                break
            try:
                taken = self._read_into(size - count, buffer[count:])
            except ssl.SSLWantReadError:  # the record was TLS's own, or is done
                self._more = False
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                taken = 0
            self.ended = not taken
            count += taken
            self._more = count == size
        return count

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return what to send for some bytes, and for what the peer is to be answered besides.

        Raises:
            ssl.SSLError: the connection is over.
        """
        write, take = self.object.write, self._outgoing.read
        size = len(data)
        if size <= RECORD:
            write(data)
            return take()
        view = memoryview(data)
        parts = []
        for start in range(0, size, RECORD):
            write(view[start : start + RECORD])
            parts.append(take())
        return b"".join(parts)

    def output(self) -> bytes:
        """Return what there is to send besides: of the handshake, an answer, a close_notify."""
        return self._outgoing.read()

    def unwrap(self) -> None:
        """Add a close_notify to the output. What comes is not to be decrypted any more."""
        with suppress(ssl.SSLError):  # the peer's own has not come yet
            self.object.unwrap()

    def _next_record(self) -> bool:
        """Have the next record decrypted; return False if it is not all there.

        Reading a part of one would cost an exception.
        """
        received = self._received
        if not self._missing:
            if len(received) < HEADER:
                return False
            size = HEADER + int.from_bytes(received[3:HEADER], "big")
            known = received[0] in KINDS and received[1] == MAJOR and size <= LONGEST
            # What is no record is given whole, for OpenSSL to say what it is.
            self._missing = size if known else len(received)
        taken = self._incoming.write(received[: self._missing])
        self._received = received[taken:] or NOTHING  # an empty view would keep all of it
        self._missing -= taken
        return not self._missing
