"""The asyncio front end; `import muxado` gives the same names."""

from .connecting import client, connect, server
from .dialer import Dialer
from .listening import Listener, Server, listen, serve, serve_streams
from .relaying import relay
from .session import Session
from .stdio import serve_stdio
from .stream import Stream
from .transport_relay import Relay

__all__ = [
    "Dialer",
    "Listener",
    "Relay",
    "Server",
    "Session",
    "Stream",
    "client",
    "connect",
    "listen",
    "relay",
    "serve",
    "serve_stdio",
    "serve_streams",
    "server",
]
