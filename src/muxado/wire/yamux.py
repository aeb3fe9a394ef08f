"""The wire format of yamux (docs/protocol.md section 16).

A frame is a 12-byte header, all big-endian, and the payload of DATA::

     0              1              2 - 3          4 ... 7     8 ... 11
    +--------------+--------------+--------------+-----------+-----------+
    |  version 0   |     type     |    flags     | stream id |  length   |
    +--------------+--------------+--------------+-----------+-----------+

`length` is a payload's only in DATA frames; in others it is what the frame says. DATA and
window updates carry the flags that open, acknowledge, end and reset a stream, any of them at once:
such a frame is announced as several.
"""

from __future__ import annotations

import struct
from typing import Final

from ..errors import ErrorCode
from .codec import (
    ACCEPTED,
    CREDIT,
    DATA,
    GO_AWAY,
    NEED_MORE,
    PING,
    PONG,
    RESET,
    Decoder,
    Encoder,
    WireFormat,
    check_field,
)
from .rules import PING_FRAMES, Rules

HEADER_SIZE: Final = 12
MAX_ID: Final = 0xFFFFFFFF
# Any length may come; this one is sent, as no window is larger.
MAX_LENGTH: Final = 0x7FFFFFFF

TYPE_DATA: Final = 0
TYPE_WINDOW: Final = 1
TYPE_PING: Final = 2
TYPE_GOAWAY: Final = 3

FLAG_SYN: Final = 1
FLAG_ACK: Final = 2
FLAG_FIN: Final = 4
FLAG_RST: Final = 8

# Streams that a Go server lets wait for its application; the next `open` waits here.
MOST_UNACKNOWLEDGED: Final = 256

# Seconds after which a stream is acknowledged that the application has not accepted: a Go peer
# ends its session after 75.
ACKNOWLEDGE_AFTER: Final = 30.0

# One ping is under way at a time, so its value need not tell it from others.
PING_VALUE: Final = 0

_pack: Final = struct.Struct(">HHII").pack
_unpack: Final = struct.Struct(">HHII").unpack_from


class YamuxEncoder(Encoder):
    """Packs yamux frames."""

    __slots__ = ()

    def data_header(self, stream_id: int, length: int, syn: bool, fin: bool) -> bytes:
        check_field("stream id", stream_id, 1, MAX_ID)
        check_field("DATA length", length, 0, MAX_LENGTH)
        # Go loses the payload of the frame that has a FIN.
        check_field("DATA length with FIN", length, 0, 0 if fin else MAX_LENGTH)
        check_field("SYN on DATA", syn, 0, 0)
        return _pack(TYPE_DATA, FLAG_FIN if fin else 0, stream_id, length)

    def open(self, stream_id: int, stream_type: int, priority: int) -> bytes:
        check_field("stream id", stream_id, 1, MAX_ID)
        return _pack(TYPE_WINDOW, FLAG_SYN, stream_id, 0)

    def accept(self, stream_id: int) -> bytes:
        check_field("stream id", stream_id, 1, MAX_ID)
        return _pack(TYPE_WINDOW, FLAG_ACK, stream_id, 0)

    def reset(self, stream_id: int, code: int) -> bytes:
        check_field("stream id", stream_id, 1, MAX_ID)
        return _pack(TYPE_WINDOW, FLAG_RST, stream_id, 0)

    def credit(self, stream_id: int, increment: int) -> bytes:
        check_field("stream id", stream_id, 1, MAX_ID)
        check_field("window increment", increment, 1, 0x7FFFFFFF)
        return _pack(TYPE_WINDOW, 0, stream_id, increment)

    def go_away(self, last_id: int, code: int, debug: bytes, final: bool) -> bytes:
        # 0 is the ordinary end, 1 a breach of the protocol, 2 what went wrong on this side.
        breach = code in (
            ErrorCode.PROTOCOL_ERROR,
            ErrorCode.FLOW_CONTROL_ERROR,
            ErrorCode.FRAME_SIZE_ERROR,
        )
        number = 1 if breach else 2 if code else 0
        return _pack(TYPE_GOAWAY, 0, 0, number)

    def ping(self) -> bytes:
        return _pack(TYPE_PING, FLAG_SYN, 0, PING_VALUE)

    def pong(self, value: int) -> bytes:
        return _pack(TYPE_PING, FLAG_ACK, 0, value)


class YamuxDecoder(Decoder):
    """Parses yamux frames."""

    __slots__ = ("_credit", "_flags")

    # Declared again because this class sets them too.
    body: int
    code: int
    fin: bool
    length: int
    stepped_over: bool
    stream_id: int
    syn: bool
    text: bytes
    value: int

    def __init__(self) -> None:
        super().__init__()
        # What the frame before says besides what was announced.
        self._flags: int = 0
        self._credit: int = 0

    def next(self) -> int:
        while True:
            if self._flags or self._credit:
                return self._rest()
            if self._skip and not self._skipped():
                return NEED_MORE
            start = self._start
            if self._end - start < HEADER_SIZE:
                return NEED_MORE
            kind, flags, stream_id, length = _unpack(self._input, start)
            self.stream_id = stream_id
            if kind <= TYPE_WINDOW:
                if stream_id == 0:
                    return self._bad(ErrorCode.PROTOCOL_ERROR, b"stream id 0")
                self._start = start + HEADER_SIZE
                if kind == TYPE_DATA:
                    return self._data(flags, length)
                self._flags = flags & 0xF
                self._credit = length
                self.stepped_over = True
                continue
            if kind == TYPE_PING:
                self._start = start + HEADER_SIZE
                self.value = length
                return PING if flags & FLAG_SYN else PONG
            if kind == TYPE_GOAWAY:
                self._start = start + HEADER_SIZE
                self.value = MAX_ID  # every stream that was opened may run to its end
                self.code = length
                self.text = b""
                return GO_AWAY
            if kind >> 8:
                return self._bad(ErrorCode.PROTOCOL_ERROR, b"unknown version of yamux")
            return self._bad(ErrorCode.PROTOCOL_ERROR, b"frame of an unknown type")

    def _data(self, flags: int, length: int) -> int:
        if flags & FLAG_RST:
            self._skip = length
            self.code = ErrorCode.STREAM_RESET
            return RESET
        self._flags = flags & FLAG_ACK
        self.length = self.body = length
        self.syn = flags & FLAG_SYN != 0
        self.fin = flags & FLAG_FIN != 0
        return DATA

    def _rest(self) -> int:
        """Announce the next part of a frame that says several things."""
        flags = self._flags
        self.length = self.body = 0
        if flags & FLAG_SYN:
            self._flags = flags & ~FLAG_SYN
            self.syn = True
            self.fin = False
            return DATA
        if flags & FLAG_ACK:
            self._flags = flags & ~FLAG_ACK
            return ACCEPTED
        if flags & FLAG_RST:
            self._flags = self._credit = 0
            self.code = ErrorCode.STREAM_RESET
            return RESET
        if self._credit:
            self.value = self._credit
            self._credit = 0
            return CREDIT
        self._flags = 0
        self.syn = False
        self.fin = True
        return DATA


YAMUX: Final = WireFormat(
    Rules(
        name="yamux",
        first_client_id=1,
        first_server_id=2,
        last_id=MAX_ID,
        max_data=MAX_LENGTH,
        agreed_window=False,
        opens_apart=True,
        unacknowledged=MOST_UNACKNOWLEDGED,
        acknowledge_after=ACKNOWLEDGE_AFTER,
        fin_rides=False,
        codes=False,
        closed_answer=False,
        pings=PING_FRAMES,
        go_away_text=False,
        errors_end=True,
        end_is_close=True,
    ),
    YamuxEncoder(),
    YamuxDecoder,
)
