"""Many independent streams over one connection; wire-compatible with Go's muxado.

The names here are the asyncio front end's. `muxado.core` is the same without I/O.
"""

from .asyncio import (
    Listener,
    Server,
    Session,
    Stream,
    client,
    connect,
    listen,
    serve,
    server,
)
from .config import Config
from .core import SessionStats
from .errors import (
    CloseReason,
    ErrorCode,
    MuxadoError,
    PeerGone,
    PeerTimeout,
    ProtocolError,
    SessionClosed,
    SessionError,
    StreamBusy,
    StreamClosed,
    StreamError,
    StreamRefused,
    StreamReset,
    StreamsExhausted,
    UsageError,
)
from .version import __version__

__all__ = [
    "CloseReason",
    "Config",
    "ErrorCode",
    "Listener",
    "MuxadoError",
    "PeerGone",
    "PeerTimeout",
    "ProtocolError",
    "Server",
    "Session",
    "SessionClosed",
    "SessionError",
    "SessionStats",
    "Stream",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamRefused",
    "StreamReset",
    "StreamsExhausted",
    "UsageError",
    "__version__",
    "client",
    "connect",
    "listen",
    "serve",
    "server",
]
