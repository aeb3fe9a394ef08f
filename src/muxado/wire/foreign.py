"""Names the protocol of a peer that doesn't speak the session's wire, by its first bytes.

Only asked once the first frame has proved illegal, so a peer that does is never misnamed.
"""

from __future__ import annotations

import re
from typing import Final

from .formats import FORMATS

# Compiled when they are needed, which is seldom: `re` keeps them then.
_HTTP: Final = (
    rb"HTTP/|[A-Z][A-Z-]{2,19} (?:[/*]|https?:)"
    rb"|(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH) "
)
_TLS: Final = rb"[\x14-\x16]\x03[\x00-\x04]"
_TEXT: Final = rb"[\t\r\n -~]{8}"
_PROXY: Final = (b"PROXY ", b"\r\n\r\n\x00\r\nQ")


def recognise(data: bytes, own: str = "muxado v2") -> str:
    """Say what a peer speaks whose first bytes are `data`.

    8 bytes are enough to tell, except for HTTP's long methods, where what follows must be there.

    Args:
        data: the bytes.
        own: what the session's own wire is called, which is never named.

    Returns what it is and what to do about it, or "" if the bytes are nothing known.
    """
    if re.match(_HTTP, data):
        return f"the peer speaks HTTP: this is not a {_family(own)} port, or a proxy answered"
    if re.match(_TLS, data):
        return "the peer speaks TLS: pass ssl="
    if data.startswith(b"SSH-"):
        return f"the peer speaks SSH: this is not a {_family(own)} port"
    if data.startswith(_PROXY):
        return "the peer sent a PROXY protocol header: turn it off, or strip it first"
    if len(data) < 8:
        return ""
    name = _multiplexer(data)
    if not name and re.match(_TEXT, data):
        return f"the peer sent text, which a program may have printed: {data[:60]!r}"
    if not name or name == own:
        return ""
    wire = name.replace(" ", "-")
    hint = f": see Config(wire={wire!r})" if wire in FORMATS else ""
    return f"the peer speaks {name}, not {own}{hint}"


def _family(own: str) -> str:
    return own.split(" ", 1)[0]


def _multiplexer(data: bytes) -> str:
    stream_id = int.from_bytes(data[4:8], "big")
    if _is_yamux(data, stream_id):
        return "yamux"
    if _is_muxado_v1(data):
        return "muxado v1"
    if data[0] in (1, 2) and data[1] <= 4:
        return f"smux v{data[0]}"
    # DATA that is not long, of one of the first streams.
    if data[0] == 0 and 0x10 <= data[3] <= 0x13 and 0 < stream_id < 0x10000:
        return "muxado v2"
    return ""


def _is_yamux(data: bytes, stream_id: int) -> bool:
    # Version 0, type 0-3, 16 bits of flags. A v1 SYN without fields has the look of yamux data
    # with SYN, but v1 never uses stream id 1, which is the first of a yamux client.
    if data[0] != 0 or data[1] > 3 or data[2] != 0 or data[3] > 0xF:
        return False
    return data[1] != 0 or stream_id == 1


def _is_muxado_v1(data: bytes) -> bool:
    # 14 bits of length, flags, type: the first frame is a SYN (type 1) or a GOAWAY (type 6).
    if data[0] != 0:
        return False
    return (data[3] == 1 and data[1] in (0, 4, 8) and data[2] <= 7) or (
        data[3] == 6 and data[2] == 0
    )
