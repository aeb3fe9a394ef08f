"""Recognises a client's wire format by its first bytes, for servers that take any of them.

A client of muxado v1 speaks at once; the others may be silent until they have something to say.
"""

from __future__ import annotations

from typing import Final

from .codec import Decoder, Encoder, WireFormat
from .formats import FORMATS
from .rules import NO_PINGS, Rules

# How many bytes it takes.
ENOUGH: Final = 8


def recognise(first: bytes) -> WireFormat | None:
    """Return the format of a client's first bytes, None if they are of no format that is known.

    Args:
        first: at least `ENOUGH` bytes.
    """
    stream_id = int.from_bytes(first[4:8], "big")
    if _is_smux(first):
        return FORMATS.get(f"smux-v{first[0]}")
    if _is_yamux(first, stream_id):
        return FORMATS["yamux"]
    if _is_muxado_v1(first, stream_id):
        return FORMATS["muxado-v1"]
    # Type and flags of a muxado v2 frame. What has them by chance, like HTTP, that format's own
    # session tells by its name.
    return FORMATS["muxado-v2"] if first[3] >= 0x10 else None


def _is_smux(first: bytes) -> bool:
    """Return whether it is a SYN or a NOP: a version, a command, no payload."""
    return first[0] in (1, 2) and first[1] in (0, 3) and first[2:4] == b"\0\0"


def _is_yamux(first: bytes, stream_id: int) -> bool:
    """Return whether it opens stream 1 by data or a window update, or is a ping or a GOAWAY."""
    version, kind, high, flags = first[:4]
    if version or high:
        return False
    if kind <= 1:
        return flags in (1, 5) and stream_id == 1
    return kind <= 3 and flags <= 2 and stream_id == 0


def _is_muxado_v1(first: bytes, stream_id: int) -> bool:
    """Return whether it is a SYN of a client, or what one may say that has opened nothing."""
    high, low, flags, kind = first[:4]
    if high:
        return False
    if kind == 1:  # yamux's SYN on data has the same look, but on the id that no v1 stream has
        return low in (0, 4, 8) and flags <= 7 and stream_id >= 3
    if kind == 3:  # a ping
        return low == flags == 0 and stream_id == 1
    return kind == 6 and low >= 8 and flags == 0 and stream_id == 0


class _SilentEncoder(Encoder):
    """Says nothing: no bytes are right on every wire."""

    __slots__ = ()

    def ping(self) -> bytes:
        return b""


# Takes the place of a client's format while its first bytes have not come: says nothing.
UNKNOWN: Final = WireFormat(
    Rules(
        name="a wire that is not known yet",
        known=False,
        first_client_id=1,
        first_server_id=2,
        last_id=0,
        max_data=0,
        pings=NO_PINGS,
        go_away=False,
        go_away_text=False,
    ),
    _SilentEncoder(),
    Decoder,
)
