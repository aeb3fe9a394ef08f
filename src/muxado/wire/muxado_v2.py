"""The wire format of muxado v2 (docs/protocol.md section 3).

A frame is an 8-byte header and a payload, all big-endian::

     0              1              2              3              4 ... 7
    +--------------+--------------+--------------+------+-------+-----------+
    |        payload length (24 bits)            | type | flags | stream id |
    +--------------+--------------+--------------+------+-------+-----------+
"""

from __future__ import annotations

import struct
from typing import Final

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
from .rules import TYPES_FIRST, Rules

HEADER_SIZE: Final = 8
MAX_LENGTH: Final = 0xFFFFFF
MAX_ID: Final = 0x7FFFFFFF
MAX_UNKNOWN: Final = 64 * 1024
MAX_DEBUG: Final = 1024

TYPE_RST: Final = 0x0
TYPE_DATA: Final = 0x1
TYPE_WNDINC: Final = 0x2
TYPE_GOAWAY: Final = 0x3

FLAG_FIN: Final = 0x1
FLAG_SYN: Final = 0x2

PROTOCOL_ERROR: Final = 1
FRAME_SIZE_ERROR: Final = 8

# Go takes 8 bytes too many after a GOAWAY (section 13, no. 1). This empty frame of an unknown
# type feeds it; other peers skip it.
GO_AWAY_PAD: Final = b"\x00\x00\x00\xf0\x00\x00\x00\x00"

PING: Final = b"\x00\x00\x00\x10\x00\x00\x00\x01"

_pack_header: Final = struct.Struct(">II").pack
_unpack_header: Final = struct.Struct(">II").unpack_from
_pack_fixed: Final = struct.Struct(">III").pack
_unpack_word: Final = struct.Struct(">I").unpack_from
_pack_go_away: Final = struct.Struct(">IIII").pack
_unpack_go_away: Final = struct.Struct(">II").unpack_from


class MuxadoV2Encoder(Encoder):
    """Packs muxado v2 frames."""

    __slots__ = ()

    def data_header(self, stream_id: int, length: int, syn: bool, fin: bool) -> bytes:
        if not (0 < stream_id <= MAX_ID and 0 <= length <= MAX_LENGTH):
            check_field("stream id", stream_id, 1, MAX_ID)
            check_field("DATA length", length, 0, MAX_LENGTH)
        word = length << 8 | 0x10
        if syn:
            word |= FLAG_SYN
        if fin:
            word |= FLAG_FIN
        return _pack_header(word, stream_id)

    def reset(self, stream_id: int, code: int) -> bytes:
        if not (0 < stream_id <= MAX_ID and 0 <= code <= 0xFFFFFFFF):
            check_field("stream id", stream_id, 1, MAX_ID)
            check_field("error code", code, 0, 0xFFFFFFFF)
        return _pack_fixed(4 << 8 | TYPE_RST << 4, stream_id, code)

    def credit(self, stream_id: int, increment: int) -> bytes:
        if not (0 < stream_id <= MAX_ID and 0 < increment <= 0x7FFFFFFF):
            check_field("stream id", stream_id, 1, MAX_ID)
            check_field("window increment", increment, 1, 0x7FFFFFFF)
        return _pack_fixed(4 << 8 | TYPE_WNDINC << 4, stream_id, increment)

    def go_away(self, last_id: int, code: int, debug: bytes, final: bool) -> bytes:
        length = 8 + len(debug)
        if not (0 <= last_id <= MAX_ID and 0 <= code <= 0xFFFFFFFF and length <= MAX_LENGTH):
            check_field("last stream id", last_id, 0, MAX_ID)
            check_field("error code", code, 0, 0xFFFFFFFF)
            check_field("GOAWAY length", length, 8, MAX_LENGTH)
        frame = _pack_go_away(length << 8 | TYPE_GOAWAY << 4, 0, last_id, code) + debug
        return frame if final else frame + GO_AWAY_PAD

    def ping(self) -> bytes:
        return PING


class MuxadoV2Decoder(Decoder):
    """Parses muxado v2 frames."""

    __slots__ = ()

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

    def next(self) -> int:
        while True:
            if self._skip and not self._skipped():
                return NEED_MORE
            start = self._start
            have = self._end - start
            if have < HEADER_SIZE:
                return NEED_MORE
            word, stream_id = _unpack_header(self._input, start)
            length: int = word >> 8
            frame_type: int = word >> 4 & 0xF
            self.stream_id = stream_id
            if frame_type == TYPE_DATA:
                if stream_id == 0:
                    return self._bad(PROTOCOL_ERROR, b"DATA on stream id 0")
                self._start = start + HEADER_SIZE
                self.length = self.body = length
                self.syn = word & FLAG_SYN != 0
                self.fin = word & FLAG_FIN != 0
                return DATA
            if frame_type == TYPE_WNDINC:
                if length != 4:
                    return self._bad(FRAME_SIZE_ERROR, b"WNDINC length is not 4")
                if have < HEADER_SIZE + 4:
                    return NEED_MORE
                self.value = _unpack_word(self._input, start + HEADER_SIZE)[0] & 0x7FFFFFFF
                if stream_id == 0:
                    return self._bad(PROTOCOL_ERROR, b"WNDINC on stream id 0")
                if self.value == 0:
                    return self._bad(PROTOCOL_ERROR, b"WNDINC of 0")
                self._start = start + HEADER_SIZE + 4
                return CREDIT
            if frame_type == TYPE_RST:
                if length != 4:
                    return self._bad(FRAME_SIZE_ERROR, b"RST length is not 4")
                if have < HEADER_SIZE + 4:
                    return NEED_MORE
                if stream_id == 0:
                    return self._bad(PROTOCOL_ERROR, b"RST on stream id 0")
                self.code = _unpack_word(self._input, start + HEADER_SIZE)[0]
                self._start = start + HEADER_SIZE + 4
                return RESET
            if frame_type == TYPE_GOAWAY:
                return self._go_away(start, have, length, stream_id)
            if length > MAX_UNKNOWN:
                return self._bad(FRAME_SIZE_ERROR, b"frame of an unknown type is too long")
            self._start = start + HEADER_SIZE
            self._skip = length
            self.stepped_over = True

    def _go_away(self, start: int, have: int, length: int, stream_id: int) -> int:
        if length < 8:
            return self._bad(FRAME_SIZE_ERROR, b"GOAWAY length is below 8")
        if stream_id != 0:
            return self._bad(PROTOCOL_ERROR, b"GOAWAY on a stream id that is not 0")
        # What is kept of the text must be here; the rest is skipped as it comes.
        kept = min(length - 8, MAX_DEBUG)
        if have < HEADER_SIZE + 8 + kept:
            return NEED_MORE
        self.value, self.code = _unpack_go_away(self._input, start + HEADER_SIZE)
        text = start + HEADER_SIZE + 8
        self.text = bytes(self._view[text : text + kept])
        self._start = text + kept
        self._skip = length - 8 - kept
        return GO_AWAY


MUXADO_V2: Final = WireFormat(
    Rules(
        name="muxado v2",
        alpn="muxado/2",
        first_client_id=3,
        first_server_id=2,
        last_id=MAX_ID,
        max_data=MAX_LENGTH,
        types=TYPES_FIRST,
        ping_id=1,
    ),
    MuxadoV2Encoder(),
    MuxadoV2Decoder,
)
