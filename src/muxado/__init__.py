"""Many independent streams over one connection; wire-compatible with Go's muxado.

The names here are the asyncio front end's. `muxado.core` is the same without I/O.
"""

from .admin import AdminServer, serve_admin
from .asyncio import (
    Dialer,
    Listener,
    Relay,
    Server,
    Session,
    Stream,
    client,
    connect,
    listen,
    relay,
    serve,
    serve_stdio,
    serve_streams,
    server,
)
from .commands import CommandEnded
from .config import Config
from .core import SessionStats, StreamSnapshot
from .errors import (
    CloseReason,
    ConfigError,
    ErrorCode,
    GoAway,
    MuxadoError,
    PeerGone,
    PeerTimeout,
    ProtocolError,
    SessionAborted,
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
from .proxies import ProxyRefused
from .redial import Backoff, DialerState
from .registry import sessions
from .relaying import RelayResult
from .snapshots import ServerStats, SessionSnapshot
from .version import __version__

__all__ = [
    "AdminServer",
    "Backoff",
    "CloseReason",
    "CommandEnded",
    "Config",
    "ConfigError",
    "Dialer",
    "DialerState",
    "ErrorCode",
    "GoAway",
    "Listener",
    "MuxadoError",
    "PeerGone",
    "PeerTimeout",
    "ProtocolError",
    "ProxyRefused",
    "Relay",
    "RelayResult",
    "Server",
    "ServerStats",
    "Session",
    "SessionAborted",
    "SessionClosed",
    "SessionError",
    "SessionSnapshot",
    "SessionStats",
    "Stream",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamRefused",
    "StreamReset",
    "StreamSnapshot",
    "StreamsExhausted",
    "UsageError",
    "__version__",
    "client",
    "connect",
    "listen",
    "relay",
    "serve",
    "serve_admin",
    "serve_stdio",
    "serve_streams",
    "server",
    "sessions",
]
