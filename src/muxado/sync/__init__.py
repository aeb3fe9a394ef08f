"""The front end for threads: the same sessions and streams, with blocking calls.

A `Stream` is used like a `socket.socket`. No event loop is involved.
"""

from .connecting import client, connect, server
from .dialer import Dialer
from .listening import Listener, Server, listen, serve, serve_streams
from .relaying import relay
from .session import Session
from .stdio import serve_stdio
from .stream import Stream
from .stream_listener import StreamListener

__all__ = [
    "Dialer",
    "Listener",
    "Server",
    "Session",
    "Stream",
    "StreamListener",
    "client",
    "connect",
    "listen",
    "relay",
    "serve",
    "serve_stdio",
    "serve_streams",
    "server",
]
