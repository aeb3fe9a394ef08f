"""The types of streams, and Go's heartbeat, which is a type.

On muxado v2's wire a type is the first 4 bytes of a stream, by agreement only
(docs/protocol.md section 10). Each incoming stream waits until its own have come, within
`Config.type_timeout`, so a late one delays none of the others. On v1's it is a field of the frame
that opens the stream.

A heartbeat is a stream of a type of its own. It is echoed here, no application sees it, and no
limit but `MOST_HEARTBEATS` counts it.
"""

from __future__ import annotations

from typing import Final

from ..errors import ErrorCode, UsageError
from ..wire import TYPES_IN_SYN
from .ledger import Ledger
from .stream import CoreStream
from .stream_state import TO_READER, TYPE_SIZE
from .stream_table import StreamTable

# What a heartbeat may make us hold unsent, and how many there may be.
MOST_ECHO: Final = 4 * 1024
MOST_HEARTBEATS: Final = 16


class TypedStreams:
    """Takes the type off incoming streams, and answers heartbeats."""

    __slots__ = ("_ledger", "_table")

    def __init__(self, ledger: Ledger, table: StreamTable) -> None:
        self._ledger = ledger
        self._table = table

    def receive(self, stream: CoreStream, chunk: bytes) -> bool:
        """Take bytes of a stream whose type isn't complete.

        Returns:
            True if the type is complete now, and the stream is one for the application.
        """
        if not stream.input_open():
            return False
        missing = TYPE_SIZE - stream.unread()
        self._table.window.put(stream, chunk)
        if len(chunk) < missing:
            return False
        stream.take_type(int.from_bytes(stream.read(TYPE_SIZE), "big"))
        self._table.type_is_known(stream)
        if stream.type != self._ledger.config.heartbeat_type:
            stream.pour_into(TO_READER)
            return True
        stream.discard_input()
        self._heartbeat(stream)
        self.echo(stream, chunk[missing:])
        return False

    def opened(self, stream: CoreStream, type: int, priority: int) -> bool:
        """Take the type and the priority that came with a stream.

        Returns:
            True if the stream is one for the application.
        """
        rules = self._ledger.rules
        stream.take_type(type)
        stream.take_priority(priority)
        if type < rules.first_reserved_type:
            return True
        if type == rules.heartbeat_type:
            self._heartbeat(stream)
        else:
            self._table.reject(stream, ErrorCode.STREAM_CLOSED)
        return False

    def _heartbeat(self, stream: CoreStream) -> None:
        if self._table.heartbeats >= MOST_HEARTBEATS:
            self._table.reject(stream, ErrorCode.STREAM_REFUSED)
        else:
            self._table.make_heartbeat(stream)

    def check(self, type: int | None) -> None:
        """Raise `UsageError` if no stream can be opened with this type, None for no type."""
        ledger = self._ledger
        rules = ledger.rules
        in_syn = rules.types == TYPES_IN_SYN
        if type is not None and not (ledger.config.typed or in_syn):
            if not rules.types:
                raise UsageError(f"streams have no types on the wire of {rules.name}")
            raise UsageError(
                "stream types need Config(typed=True) on both ends: on this wire a type is"
                " the stream's first 4 bytes, by agreement only"
            )
        if type is not None and not 0 <= type <= 0xFFFFFFFF:
            raise UsageError(f"a stream type is a 32-bit number, not {type}")
        number = type or 0
        if in_syn and number >= rules.first_reserved_type:
            raise UsageError(
                f"types from {rules.first_reserved_type:#x} on are for extensions of {rules.name}"
            )
        if not in_syn and number == ledger.config.heartbeat_type:
            raise UsageError(f"type {number:#x} is for heartbeats, which are answered, not opened")

    def echo(self, stream: CoreStream, chunk: bytes) -> None:
        """Send a heartbeat back."""
        if not chunk or not stream.input_open():
            return
        self._table.window.pass_over(stream, len(chunk))
        if stream.queued() + len(chunk) > MOST_ECHO:
            self._table.reject(stream, ErrorCode.ENHANCE_YOUR_CALM)
        else:
            stream.echo(chunk)
