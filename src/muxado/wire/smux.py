"""The wire format of smux, versions 1 and 2 (docs/protocol.md section 17).

A frame is an 8-byte header, all little-endian, and a payload::

     0              1              2 - 3          4 ... 7
    +--------------+--------------+--------------+-----------+
    | version 1, 2 |   command    |payload length| stream id |
    +--------------+--------------+--------------+-----------+

There is no acknowledgement, no refusal, no reset, no ping with an answer and no word for the
session's end. Version 2 has credit for each stream, told as a total; in version 1 only the
transport holds a sender back.
"""

from __future__ import annotations

import struct
from typing import Final

from ..errors import ErrorCode
from .codec import DATA, NEED_MORE, WINDOW, Decoder, Encoder, WireFormat, check_field
from .rules import NO_PINGS, NO_WINDOW, Rules

HEADER_SIZE: Final = 8
MAX_LENGTH: Final = 0xFFFF
MAX_ID: Final = 0xFFFFFFFF

CMD_SYN: Final = 0
CMD_FIN: Final = 1
CMD_PSH: Final = 2
CMD_NOP: Final = 3
CMD_UPD: Final = 4

UPD_SIZE: Final = 8

# Go gives a peer up from which nothing has come for 30 s, and itself says something every 10 s.
KEEPALIVE: Final = 10.0

_pack: Final = struct.Struct("<BBHI").pack
_unpack: Final = struct.Struct("<BBHI").unpack_from
_pack_update: Final = struct.Struct("<BBHIII").pack
_unpack_update: Final = struct.Struct("<II").unpack_from


class SmuxEncoder(Encoder):
    """Packs smux frames of one version."""

    __slots__ = ("_version",)

    def __init__(self, version: int) -> None:
        self._version: int = version

    def data_header(self, stream_id: int, length: int, syn: bool, fin: bool) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        check_field("PSH length", length, 0, 0 if fin else MAX_LENGTH)
        check_field("SYN on PSH", syn, 0, 0)
        return _pack(self._version, CMD_FIN if fin else CMD_PSH, length, stream_id)

    def open(self, stream_id: int, stream_type: int, priority: int) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        return _pack(self._version, CMD_SYN, 0, stream_id)

    def reset(self, stream_id: int, code: int) -> bytes:
        """Pack a FIN, which is the most that can be said."""
        check_field("stream id", stream_id, 0, MAX_ID)
        return _pack(self._version, CMD_FIN, 0, stream_id)

    def window(self, stream_id: int, consumed: int, window: int) -> bytes:
        check_field("stream id", stream_id, 0, MAX_ID)
        check_field("window", window, 0, 0x7FFFFFFF)
        consumed &= 0xFFFFFFFF
        return _pack_update(self._version, CMD_UPD, UPD_SIZE, stream_id, consumed, window)

    def cut(self) -> bytes:
        return bytes((self._version,))

    def ping(self) -> bytes:
        return _pack(self._version, CMD_NOP, 0, 0)


class SmuxDecoder(Decoder):
    """Parses smux frames of one version."""

    __slots__ = ("_version",)

    # Declared again because this class sets them too.
    body: int
    fin: bool
    length: int
    stepped_over: bool
    stream_id: int
    syn: bool
    value: int
    window: int

    def __init__(self, version: int) -> None:
        super().__init__()
        self._version: int = version

    def next(self) -> int:
        while True:
            if self._skip and not self._skipped():
                return NEED_MORE
            start = self._start
            have = self._end - start
            if have < HEADER_SIZE:
                return NEED_MORE
            version, command, length, stream_id = _unpack(self._input, start)
            if version != self._version:
                return self._bad(ErrorCode.PROTOCOL_ERROR, b"frame of another version of smux")
            self.stream_id = stream_id
            if command == CMD_PSH:
                self._start = start + HEADER_SIZE
                if not length:
                    self.stepped_over = True
                    continue
                self.length = self.body = length
                self.syn = self.fin = False
                return DATA
            if command == CMD_UPD and version != 1:
                if length != UPD_SIZE:
                    return self._bad(ErrorCode.FRAME_SIZE_ERROR, b"UPD length is not 8")
                if have < HEADER_SIZE + UPD_SIZE:
                    return NEED_MORE
                self.value, self.window = _unpack_update(self._input, start + HEADER_SIZE)
                self._start = start + HEADER_SIZE + UPD_SIZE
                return WINDOW
            if command > CMD_NOP:
                return self._bad(ErrorCode.PROTOCOL_ERROR, b"frame of an unknown command")
            if length:
                return self._bad(ErrorCode.FRAME_SIZE_ERROR, b"SYN, FIN or NOP with a payload")
            self._start = start + HEADER_SIZE
            if command == CMD_NOP:
                self.stepped_over = True
                continue
            self.length = self.body = 0
            self.syn = command == CMD_SYN
            self.fin = command == CMD_FIN
            return DATA


class SmuxV1Decoder(SmuxDecoder):
    """Parses frames of smux version 1."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(1)


class SmuxV2Decoder(SmuxDecoder):
    """Parses frames of smux version 2."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(2)


def _rules(version: int, first_window: int) -> Rules:
    return Rules(
        name=f"smux v{version}",
        first_client_id=3,
        first_server_id=2,
        last_id=MAX_ID,
        max_data=MAX_LENGTH,
        first_window=first_window,
        agreed_window=False,
        total_credit=True,
        opens_apart=True,
        repeated_syn=True,
        fin_rides=False,
        resets=False,
        codes=False,
        closed_answer=False,
        pings=NO_PINGS,
        keepalive=KEEPALIVE,
        go_away=False,
        go_away_text=False,
        end_is_close=True,
    )


SMUX_V1: Final = WireFormat(_rules(1, NO_WINDOW), SmuxEncoder(1), SmuxV1Decoder)
SMUX_V2: Final = WireFormat(_rules(2, 256 * 1024), SmuxEncoder(2), SmuxV2Decoder)
