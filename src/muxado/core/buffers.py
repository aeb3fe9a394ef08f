"""The two byte queues of a stream: what came and is unread, what was written and is unsent."""

from __future__ import annotations

from typing import Final

# A shorter chunk that finds others waiting is copied behind them: an object for each of many
# tiny frames, or tiny writes, would hold many times their bytes.
SMALL: Final = 2048
JOINED: Final = 16 * 1024


class Inbox:
    """Bytes received and not yet read, in order.

    It holds at most half as much again as is unread: what was read of a chunk is given back by
    copying the rest, once it is more than half of that rest. So each byte is copied at most twice
    more, however small the pieces are in which a reader takes it.

    Attributes:
        size: how many there are.
    """

    __slots__ = ("_chunks", "_offset", "size")

    def __init__(self, chunk: bytes) -> None:
        """Begin with the first bytes, one at least."""
        self._chunks: list[bytes | bytearray] = [chunk]
        self._offset = 0  # of the first unread byte in the first chunk
        self.size: int = len(chunk)

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
            end = offset + limit
            self.size -= limit
            if end > (have - limit) >> 1:
                chunks[0] = first[end:]
                self._offset = 0
            else:
                self._offset = end
            return bytes(first[offset:end])
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
                if rest > (len(chunk) - rest) >> 1:
                    chunks[used] = chunk[rest:]
                else:
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
        """Return the offset of `separator` at or after `start`, or -1.

        The work is in proportion to the bytes behind `start`, so that a caller who looks again
        when more has come pays for each byte once.
        """
        chunks = self._chunks
        if not chunks or start >= self.size:
            return -1
        # From the end backwards to the chunk that has `start`, which most often is the last.
        index = len(chunks) - 1
        begin = self.size - len(chunks[index])  # the offset of the chunk's first byte
        while index and begin > start:
            index -= 1
            begin -= len(chunks[index])
        # For separators that lie across chunks: the last bytes of those that were looked through.
        overlap = len(separator) - 1
        tail = b""
        skip = start - begin
        for chunk in chunks[index:]:
            if tail:
                at = (tail + chunk[:overlap]).find(separator)
                if at >= 0:
                    return begin - len(tail) + at
            at = chunk.find(separator, skip)
            if at >= 0:
                return begin + at
            begin += len(chunk)
            if overlap:
                tail = (tail + chunk[max(skip, len(chunk) - overlap) :])[-overlap:]
            skip = 0
        return -1


class Outbox:
    """Bytes written and not yet sent, in order; long chunks by reference.

    Attributes:
        size: how many there are.
    """

    __slots__ = ("_chunks", "_offset", "size")

    def __init__(self, chunk: bytes) -> None:
        """Begin with the first bytes, one at least."""
        self._chunks: list[bytes | bytearray] = [chunk]
        self._offset = 0  # of the first unsent byte in the first chunk
        self.size: int = len(chunk)

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        chunks = self._chunks
        length = len(chunk)
        self.size += length
        if chunks and length < SMALL:
            tail = chunks[-1]
            if isinstance(tail, bytearray) and len(tail) < JOINED:
                tail += chunk
                return
            chunks.append(bytearray(chunk))
            return
        chunks.append(chunk)

    def take(self, count: int, out: list[bytes | bytearray | memoryview]) -> None:
        """Move the first `count` bytes (no more than there are) to the end of `out`."""
        chunks = self._chunks
        self.size -= count
        offset = self._offset
        used = 0
        while count:
            chunk = chunks[used]
            have = len(chunk) - offset
            if have > count:
                # A bytearray with a view of it couldn't grow any more, so this part is copied.
                part = chunk if isinstance(chunk, bytearray) else memoryview(chunk)
                out.append(part[offset : offset + count])
                offset += count
                break
            out.append(memoryview(chunk)[offset:] if offset else chunk)
            count -= have
            offset = 0
            used += 1
        if used:
            del chunks[:used]
        self._offset = offset
