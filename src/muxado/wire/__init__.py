"""What travels: one module per wire format, packing and parsing frames, knowing no state.

`codec` is the seam: the `Decoder`, `Encoder` and `Rules` that every format brings.
`muxado_v2` is the format of ``golang.ngrok.com/muxado/v2``. `foreign` names other protocols
by their first bytes, for error messages.
"""

from .codec import Decoder, Encoder, Rules, WireFormat
from .muxado_v2 import MUXADO_V2

__all__ = ["MUXADO_V2", "Decoder", "Encoder", "Rules", "WireFormat"]
