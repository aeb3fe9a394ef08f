"""The two byte queues of a stream: what came and is unread, what was written and is unsent."""

from __future__ import annotations

from typing import Final

# A shorter chunk that finds others waiting is copied behind them, so that a peer that sends
# many tiny frames can't make us hold many tiny objects.
SMALL: Final = 2048
JOINED: Final = 16 * 1024


class Inbox:
    """Bytes received and not yet read, in order.

    Attributes:
        size: how many there are.
    """

    __slots__ = ("_chunks", "_offset", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes | bytearray] = []
        self._offset = 0  # of the first unread byte in the first chunk
        self.size: int = 0

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        length = len(chunk)
        self.size += length
        if length < SMALL and self._chunks:
            tail = self._chunks[-1]
            if isinstance(tail, bytearray) and len(tail) < JOINED:
                tail += chunk
                return
            self._chunks.append(bytearray(chunk))
            return
        self._chunks.append(chunk)

    def read(self, limit: int) -> bytes:
        """Remove and return the first bytes, at most `limit` (0 or more)."""
        chunks = self._chunks
        if not chunks or limit <= 0:
            return b""
        offset = self._offset
        first = chunks[0]
        have = len(first) - offset
        if have > limit:
            self._offset = offset + limit
            self.size -= limit
            return bytes(first[offset : offset + limit])
        if have == limit or len(chunks) == 1:
            del chunks[0]
            self._offset = 0
            self.size -= have
            return bytes(first[offset:] if offset else first)
        parts: list[bytes | bytearray] = [first[offset:] if offset else first]
        used = 1
        rest = limit - have
        offset = 0
        while rest and used < len(chunks):
            chunk = chunks[used]
            if len(chunk) > rest:
                parts.append(chunk[:rest])
                offset = rest
                rest = 0
                break
            parts.append(chunk)
            rest -= len(chunk)
            used += 1
        del chunks[:used]
        self._offset = offset
        self.size -= limit - rest
        return b"".join(parts)

    def find(self, separator: bytes, start: int) -> int:
        """Return the offset of `separator` at or after `start`, or -1."""
        if len(self._chunks) > 1:
            self._chunks = [bytearray(self.read(self.size))]
            self.size = len(self._chunks[0])
        if not self._chunks:
            return -1
        at = self._chunks[0].find(separator, self._offset + start)
        return at - self._offset if at >= 0 else -1


class Outbox:
    """Bytes written and not yet sent, in order, by reference.

    Attributes:
        size: how many there are.
    """

    __slots__ = ("_chunks", "_offset", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._offset = 0  # of the first unsent byte in the first chunk
        self.size: int = 0

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._chunks.append(chunk)
        self.size += len(chunk)

    def take(self, count: int, out: list[bytes | memoryview]) -> None:
        """Move the first `count` bytes (no more than there are) to the end of `out`."""
        chunks = self._chunks
        self.size -= count
        offset = self._offset
        used = 0
        while count:
            chunk = chunks[used]
            have = len(chunk) - offset
            if have > count:
                out.append(memoryview(chunk)[offset : offset + count])
                offset += count
                break
            out.append(memoryview(chunk)[offset:] if offset else chunk)
            count -= have
            offset = 0
            used += 1
        if used:
            del chunks[:used]
        self._offset = offset
