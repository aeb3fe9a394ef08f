"""The wire formats by the names that `Config.wire` knows."""

from __future__ import annotations

from typing import Final

from .codec import WireFormat
from .muxado_v1 import MUXADO_V1
from .muxado_v2 import MUXADO_V2
from .smux import SMUX_V1, SMUX_V2
from .yamux import YAMUX

FORMATS: Final[dict[str, WireFormat]] = {
    "muxado-v2": MUXADO_V2,
    "muxado-v1": MUXADO_V1,
    "yamux": YAMUX,
    "smux-v2": SMUX_V2,
    "smux-v1": SMUX_V1,
}


def name_of(wire: WireFormat) -> str:
    """Return the name by which `Config.wire` knows a format."""
    return next(name for name, known in FORMATS.items() if known is wire)
