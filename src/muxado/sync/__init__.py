"""The front end for threads: the same sessions and streams, with blocking calls.

A `Stream` is used like a `socket.socket`. No event loop is involved.
"""

from .dialling import connect
from .listening import Listener, Server, listen, serve
from .session import Session, client, server
from .stream import Stream
from .stream_listener import StreamListener

__all__ = [
    "Listener",
    "Server",
    "Session",
    "Stream",
    "StreamListener",
    "client",
    "connect",
    "listen",
    "serve",
    "server",
]
