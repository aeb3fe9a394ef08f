"""The asyncio front end; `import muxado` gives the same names."""

from .dialling import client, connect, server
from .listening import Listener, Server, listen, serve
from .session import Session
from .stream import Stream

__all__ = [
    "Listener",
    "Server",
    "Session",
    "Stream",
    "client",
    "connect",
    "listen",
    "serve",
    "server",
]
