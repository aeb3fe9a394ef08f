"""What travels: one module per wire format, packing and parsing frames, knowing no state.

`codec` is the seam: the `Decoder` and `Encoder` that every format brings, and `rules` the
`Rules` by which a session tells one from another. `muxado_v2` is the format of
``golang.ngrok.com/muxado/v2``, `muxado_v1` that of its first generation; `yamux` and `smux` are
what other multiplexers speak. `formats` has them by name. `auto` recognises a client's format
by its first bytes, `foreign` names other protocols by theirs, for error messages.
"""

from .codec import Decoder, Encoder, WireFormat
from .formats import FORMATS, name_of
from .muxado_v2 import MUXADO_V2
from .rules import NO_PINGS, NO_WINDOW, TYPES_FIRST, TYPES_IN_SYN, Rules

__all__ = [
    "FORMATS",
    "MUXADO_V2",
    "NO_PINGS",
    "NO_WINDOW",
    "TYPES_FIRST",
    "TYPES_IN_SYN",
    "Decoder",
    "Encoder",
    "Rules",
    "WireFormat",
    "name_of",
]
