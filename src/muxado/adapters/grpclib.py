"""grpclib over sessions: gRPC in pure Python, with a stream for each HTTP/2 connection."""

from __future__ import annotations

import asyncio
from typing import Any

from ..asyncio import Session
from ..extras import needs

with needs("grpclib"):
    import grpclib.client
    import grpclib.server
    from grpclib.protocol import H2Protocol

__all__ = ["Channel", "serve"]


class Channel(grpclib.client.Channel):
    """A `grpclib.client.Channel` over a stream of a session; a new one if that is lost.

    Args:
        session: the session. Closing the channel leaves it open.
        kwds: what `grpclib.client.Channel` takes.
    """

    def __init__(self, session: Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        self._session = session

    async def _create_connection(self) -> H2Protocol:
        _, protocol = await self._session.create_connection(self._protocol_factory)
        return protocol


async def serve(server: grpclib.server.Server, session: Session) -> None:
    """Run a `grpclib.server.Server` for the streams that the peer opens.

    The server's own `close` ends it, on every session, and cancels the calls that are running;
    its `wait_closed` waits for them. Cancelled, it takes no more streams; calls that are running
    go on.

    Args:
        server: the server, with its handlers, which has not been started otherwise; one may
            serve many sessions.
        session: the session. It is left open.

    Returns:
        when the session has ended in order, or the server was closed.

    Raises:
        RuntimeError: the server listens on sockets, or was closed before.
        SessionError: the session ended otherwise.
    """
    streams = _streams_of(server)
    accepting = session.create_server(server._protocol_factory)
    streams.accepting.add(accepting)
    try:
        await accepting.serve_forever()
    finally:
        accepting.close()
        streams.accepting.discard(accepting)


class _Streams:
    """What a grpclib server closes and waits for: in place of one that listens."""

    def __init__(self) -> None:
        self.accepting: set[asyncio.AbstractServer] = set()  # one for each session
        self.closed = False

    def close(self) -> None:
        self.closed = True
        for accepting in self.accepting:
            accepting.close()

    async def wait_closed(self) -> None:
        for accepting in list(self.accepting):
            await accepting.wait_closed()


def _streams_of(server: grpclib.server.Server) -> _Streams:
    """Return what stands for all of a server's sessions, made with the first of them."""
    streams: Any = server._server
    if streams is None:
        streams = _Streams()
        server._server = streams
        server._server_closed_fut = asyncio.get_running_loop().create_future()
    if not isinstance(streams, _Streams):
        raise RuntimeError("the server listens on sockets already")
    if streams.closed:
        raise RuntimeError("the server is closed")
    return streams
