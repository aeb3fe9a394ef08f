"""grpclib over sessions: gRPC in pure Python, with a stream for each HTTP/2 connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..asyncio import Session
from ..extras import needs
from ._idle import close_idle_when_draining

with needs("grpclib"):
    import grpclib.client
    import grpclib.server
    from grpclib.protocol import EventsProcessor, H2Protocol, Stream

__all__ = ["Channel", "serve"]


class Channel(grpclib.client.Channel):
    """A `grpclib.client.Channel` over a stream of a session; a new one if that is lost.

    Args:
        session: the session. Closing the channel leaves it open. When it drains, the channel's
            stream ends once no call is running.
        kwds: what `grpclib.client.Channel` takes.
    """

    def __init__(self, session: Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        self._session = session

    async def _create_connection(self) -> H2Protocol:
        session = self._session
        _, protocol = await session.create_connection(
            lambda: _Protocol(self._protocol_factory(), session)
        )
        return protocol


async def serve(server: grpclib.server.Server, session: Session) -> None:
    """Run a `grpclib.server.Server` for the streams that the peer opens.

    The server's own `close` ends it, on every session, and cancels the calls that are running;
    its `wait_closed` waits for them. Cancelled, it takes no more streams; calls that are running
    go on. When the session drains, its streams end once no call is running.

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
    accepting = session.create_server(lambda: _Protocol(server._protocol_factory(), session))
    streams.accepting.add(accepting)
    try:
        await accepting.serve_forever()
    finally:
        accepting.close()
        streams.accepting.discard(accepting)


class _Protocol(H2Protocol):
    """grpclib's own protocol, which ends when the session drains and no call is running.

    Args:
        made: a protocol that grpclib has made, from which this one takes its parts.
        session: what carries the stream.
    """

    def __init__(self, made: H2Protocol, session: Session) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self._session = session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.processor = _Calls(self.handler, self.connection)
        self.processor.session = self._session
        close_idle_when_draining(self._session, self.processor)


class _Calls(EventsProcessor):
    """The calls over one HTTP/2 connection."""

    session: Session

    def register(self, stream: Stream) -> Callable[[], None]:
        """Take a call in; return what is called at its end."""
        release = super().register(stream)

        def release_and_look() -> None:
            release()
            if self.session.draining:
                # The call is not quite done, so this has to wait for it.
                asyncio.get_running_loop().call_soon(self.close_idle)

        return release_and_look

    def close_idle(self) -> None:
        """End the connection if no call is running."""
        if not self.streams and not self.connection.is_closing():
            self.close()


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
