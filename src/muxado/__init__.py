"""Many independent streams over one connection; wire-compatible with Go's muxado.

The names here are the asyncio front end's. `muxado.core` is the same without I/O.

Each is imported when it is first asked for: a program on `muxado.sync`, `muxado.trio` or
`muxado.core` then starts without asyncio.
"""

import importlib
import typing

from .version import __version__

if typing.TYPE_CHECKING:
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

# The module that each name is from.
_HOMES = {
    "AdminServer": "admin",
    "serve_admin": "admin",
    "Dialer": "asyncio",
    "Listener": "asyncio",
    "Relay": "asyncio",
    "Server": "asyncio",
    "Session": "asyncio",
    "Stream": "asyncio",
    "client": "asyncio",
    "connect": "asyncio",
    "listen": "asyncio",
    "relay": "asyncio",
    "serve": "asyncio",
    "serve_stdio": "asyncio",
    "serve_streams": "asyncio",
    "server": "asyncio",
    "CommandEnded": "commands",
    "Config": "config",
    "SessionStats": "core",
    "StreamSnapshot": "core",
    "CloseReason": "errors",
    "ConfigError": "errors",
    "ErrorCode": "errors",
    "GoAway": "errors",
    "MuxadoError": "errors",
    "PeerGone": "errors",
    "PeerTimeout": "errors",
    "ProtocolError": "errors",
    "SessionAborted": "errors",
    "SessionClosed": "errors",
    "SessionError": "errors",
    "StreamBusy": "errors",
    "StreamClosed": "errors",
    "StreamError": "errors",
    "StreamRefused": "errors",
    "StreamReset": "errors",
    "StreamsExhausted": "errors",
    "UsageError": "errors",
    "ProxyRefused": "proxies",
    "Backoff": "redial",
    "DialerState": "redial",
    "sessions": "registry",
    "RelayResult": "relaying",
    "ServerStats": "snapshots",
    "SessionSnapshot": "snapshots",
}


# Modules that can be asked for without an import of their own.
_MODULES = {"asyncio", "config", "core", "errors"}


# Without it type checkers know the names, and tell which are none.
if not typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return importlib.import_module(f".{name}", __name__)
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
