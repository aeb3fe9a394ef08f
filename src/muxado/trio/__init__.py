"""The front end for trio: a stream is a `HalfCloseableStream`, a session a `Listener`.

Sessions live in the nursery of an ``async with`` block, and nothing outlives it. Needs the
`trio` extra: ``pip install 'muxado[trio]'``.
"""

from .dialling import connect
from .listening import Listener, Server, listen, serve
from .session import Session, client, server
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
