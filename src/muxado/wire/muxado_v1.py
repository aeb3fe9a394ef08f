"""The wire format of muxado v1, the first generation of 2014 (docs/protocol.md section 15).

A frame is an 8-byte header and a body, all big-endian::

     0              1              2              3              4 ... 7
    +---+-------------------------+--------------+---+----------+-----------+
    | - |  body length (14 bits)  |    flags     | - |   type   | stream id |
    +---+-------------------------+--------------+---+----------+-----------+

Bits without a meaning are ignored. A stream is opened by a SYN of its own, which carries type and
priority. Error codes have numbers of their own; they are translated here, and nowhere else.
"""

from __future__ import annotations

import struct
from typing import Final

from ..errors import ErrorCode
from .codec import (
    CREDIT,
    DATA,
    GO_AWAY,
    NEED_MORE,
    RESET,
    Decoder,
    Encoder,
    WireFormat,
    check_field,
)
from .rules import PING_DRAWS_RESET, TYPES_IN_SYN, Rules

HEADER_SIZE: Final = 8
MAX_LENGTH: Final = 0x3FFF
MAX_ID: Final = 0x7FFFFFFF

TYPE_SYN: Final = 1
TYPE_RST: Final = 2
TYPE_DATA: Final = 3
TYPE_WNDINC: Final = 4
TYPE_GOAWAY: Final = 6

FLAG_FIN: Final = 0x1
FLAG_PRIORITY: Final = 0x2
FLAG_TYPE: Final = 0x4

HEARTBEAT_TYPE: Final = 0xFFFFFEFF
FIRST_RESERVED_TYPE: Final = 0xFFFFFEFF

# Go says 16 and more, and then sends 8 bytes: its length counts a header too, and a text that it
# never writes. 8 is what every reader takes for 8.
GO_AWAY_LENGTH: Final = 8
GO_AWAY_WRONG: Final = 16

PING: Final = b"\x00\x00\x00\x03\x00\x00\x00\x01"

# By this library's code. What is above them is a program's own, and travels as it is.
_TO_WIRE: Final[dict[int, int]] = {
    ErrorCode.NO_ERROR: 0,
    ErrorCode.PROTOCOL_ERROR: 1,
    ErrorCode.INTERNAL_ERROR: 2,
    ErrorCode.FLOW_CONTROL_ERROR: 3,
    ErrorCode.STREAM_CLOSED: 4,
    ErrorCode.FRAME_SIZE_ERROR: 5,
    ErrorCode.STREAM_REFUSED: 6,
    ErrorCode.ACCEPT_QUEUE_FULL: 6,
    ErrorCode.REMOTE_GONE_AWAY: 6,
    ErrorCode.STREAM_CANCELLED: 7,
    ErrorCode.STREAM_RESET: 7,
    ErrorCode.WRITE_TIMEOUT: 7,
    ErrorCode.ENHANCE_YOUR_CALM: 2,
    ErrorCode.STREAMS_EXHAUSTED: 2,
    ErrorCode.SESSION_CLOSED: 2,
    ErrorCode.PEER_EOF: 2,
    ErrorCode.UNKNOWN: 2,
}
_FROM_WIRE: Final = (
    int(ErrorCode.NO_ERROR),
    int(ErrorCode.PROTOCOL_ERROR),
    int(ErrorCode.INTERNAL_ERROR),
    int(ErrorCode.FLOW_CONTROL_ERROR),
    int(ErrorCode.STREAM_CLOSED),
    int(ErrorCode.FRAME_SIZE_ERROR),
    int(ErrorCode.STREAM_REFUSED),
    int(ErrorCode.STREAM_CANCELLED),
)

_pack_header: Final = struct.Struct(">II").pack
_unpack_header: Final = struct.Struct(">II").unpack_from
_pack_fixed: Final = struct.Struct(">III").pack
_unpack_word: Final = struct.Struct(">I").unpack_from
_pack_two: Final = struct.Struct(">IIII").pack
_unpack_two: Final = struct.Struct(">II").unpack_from


def to_wire(code: int) -> int:
    """Return the format's number for one of this library's codes."""
    return _TO_WIRE.get(code, code)


def from_wire(number: int) -> int:
    """Return this library's code for one of the format's numbers.

    The numbers from 8 on mean nothing to the format. Those that mean something here would be
    misread, so they are UNKNOWN; the others are a program's own.
    """
    if number < len(_FROM_WIRE):
        return _FROM_WIRE[number]
    return int(ErrorCode.UNKNOWN) if number in _TO_WIRE else number


class MuxadoV1Encoder(Encoder):
    """Packs muxado v1 frames."""

    __slots__ = ()

    def data_header(self, stream_id: int, length: int, syn: bool, fin: bool) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        check_field("DATA length", length, 0, MAX_LENGTH)
        check_field("SYN on DATA", syn, 0, 0)
        word = length << 16 | TYPE_DATA
        if fin:
            word |= FLAG_FIN << 8
        return _pack_header(word, stream_id)

    def open(self, stream_id: int, stream_type: int, priority: int) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        check_field("stream type", stream_type, 0, 0xFFFFFFFF)
        check_field("priority", priority, 0, 0x7FFFFFFF)
        if stream_type and priority:
            word = 8 << 16 | (FLAG_PRIORITY | FLAG_TYPE) << 8 | TYPE_SYN
            return _pack_two(word, stream_id, priority, stream_type)
        if stream_type:
            return _pack_fixed(4 << 16 | FLAG_TYPE << 8 | TYPE_SYN, stream_id, stream_type)
        if priority:
            return _pack_fixed(4 << 16 | FLAG_PRIORITY << 8 | TYPE_SYN, stream_id, priority)
        return _pack_header(TYPE_SYN, stream_id)

    def reset(self, stream_id: int, code: int) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        check_field("error code", code, 0, 0xFFFFFFFF)
        return _pack_fixed(4 << 16 | TYPE_RST, stream_id, to_wire(code))

    def credit(self, stream_id: int, increment: int) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        check_field("window increment", increment, 1, 0x7FFFFFFF)
        return _pack_fixed(4 << 16 | TYPE_WNDINC, stream_id, increment)

    def go_away(self, last_id: int, code: int, debug: bytes, final: bool) -> bytes:
        check_field("last stream id", last_id, 0, MAX_ID)
        check_field("error code", code, 0, 0xFFFFFFFF)
        return _pack_two(GO_AWAY_LENGTH << 16 | TYPE_GOAWAY, 0, last_id, to_wire(code))

    def ping(self) -> bytes:
        return PING


class MuxadoV1Decoder(Decoder):
    """Parses muxado v1 frames."""

    __slots__ = ()

    # Declared again because this class sets them too.
    body: int
    code: int
    fin: bool
    length: int
    priority: int
    stepped_over: bool
    stream_id: int
    syn: bool
    text: bytes
    type: int
    value: int

    def next(self) -> int:
        while True:
            if self._skip and not self._skipped():
                return NEED_MORE
            start = self._start
            have = self._end - start
            if have < HEADER_SIZE:
                return NEED_MORE
            word, stream_id = _unpack_header(self._input, start)
            length: int = word >> 16 & MAX_LENGTH
            frame_type: int = word & 0x1F
            self.stream_id = stream_id & MAX_ID
            if frame_type == TYPE_DATA:
                self._start = start + HEADER_SIZE
                self.length = self.body = length
                self.syn = False
                self.fin = word >> 8 & FLAG_FIN != 0
                return DATA
            if frame_type in (TYPE_WNDINC, TYPE_RST):
                if length != 4:
                    return self._bad(ErrorCode.FRAME_SIZE_ERROR, b"RST or WNDINC length is not 4")
                if have < HEADER_SIZE + 4:
                    return NEED_MORE
                number: int = _unpack_word(self._input, start + HEADER_SIZE)[0]
                self._start = start + HEADER_SIZE + 4
                if frame_type == TYPE_RST:
                    self.code = from_wire(number)
                    return RESET
                self.value = number & 0x7FFFFFFF
                if self.value:
                    return CREDIT
                self.stepped_over = True
                continue
            if frame_type == TYPE_SYN:
                return self._syn(start, have, length, word >> 8 & 0xFF)
            if frame_type == TYPE_GOAWAY:
                return self._go_away(start, have, length)
            return self._bad(ErrorCode.PROTOCOL_ERROR, b"frame of an unknown type")

    def _syn(self, start: int, have: int, length: int, flags: int) -> int:
        has_priority = flags & FLAG_PRIORITY != 0
        has_type = flags & FLAG_TYPE != 0
        if length != 4 * (has_priority + has_type):
            return self._bad(ErrorCode.FRAME_SIZE_ERROR, b"SYN length does not fit its flags")
        if have < HEADER_SIZE + length:
            return NEED_MORE
        at = start + HEADER_SIZE
        self.type = self.priority = 0
        if has_priority:
            self.priority = _unpack_word(self._input, at)[0] & 0x7FFFFFFF
            at += 4
        if has_type:
            self.type = _unpack_word(self._input, at)[0]
            at += 4
        self._start = at
        self.length = self.body = 0
        self.syn = True
        # Go turns the FIN of a SYN round: it is the accepting side that can't write. It never
        # sends one of its own accord, and goes on if it is taken for none.
        self.fin = False
        return DATA

    def _go_away(self, start: int, have: int, length: int) -> int:
        if length < 8:
            return self._bad(ErrorCode.FRAME_SIZE_ERROR, b"GOAWAY length is below 8")
        if length >= GO_AWAY_WRONG:
            length = 8
        if have < HEADER_SIZE + length:
            return NEED_MORE
        at = start + HEADER_SIZE
        last_id, number = _unpack_two(self._input, at)
        self.value = last_id & MAX_ID
        self.code = from_wire(number)
        self.text = bytes(self._view[at + 8 : at + length])
        self._start = at + length
        return GO_AWAY


MUXADO_V1: Final = WireFormat(
    Rules(
        name="muxado v1",
        alpn="muxado/1",
        first_client_id=3,
        first_server_id=2,
        last_id=MAX_ID,
        max_data=MAX_LENGTH,
        first_window=64 * 1024,
        agreed_window=False,
        opens_apart=True,
        ids_rise=True,
        types=TYPES_IN_SYN,
        heartbeat_type=HEARTBEAT_TYPE,
        first_reserved_type=FIRST_RESERVED_TYPE,
        heartbeats_outlive=True,
        refills=True,
        pings=PING_DRAWS_RESET,
        ping_id=1,
        go_away_text=False,
    ),
    MuxadoV1Encoder(),
    MuxadoV1Decoder,
)
