"""The front end for trio: a stream is a `HalfCloseableStream`, a session a `Listener`.

Sessions live in the nursery of an ``async with`` block, and nothing outlives it. Needs the
`trio` extra: ``pip install 'muxado[trio]'``.
"""

from ..extras import needs

with needs("trio"):
    from .connecting import client, connect, server
    from .dialer import Dialer
    from .listening import Listener, Server, listen, serve, serve_streams
    from .relaying import relay
    from .session import Session
    from .stdio import serve_stdio
from .stream import Stream

__all__ = [
    "Dialer",
    "Listener",
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
