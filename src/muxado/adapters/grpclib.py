"""grpclib over sessions: gRPC in pure Python, with a stream for each HTTP/2 connection."""

from __future__ import annotations

from typing import Any

import grpclib.client
import grpclib.server
from grpclib.protocol import H2Protocol

from ..asyncio import Session

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

    Cancelled, it takes no more streams; calls that are running go on.

    Args:
        server: the server, with its handlers; one may serve many sessions.
        session: the session. It is left open.

    Returns:
        when the session has ended in order.

    Raises:
        SessionError: the session ended otherwise.
    """
    streams = session.create_server(server._protocol_factory)
    try:
        await streams.serve_forever()
    finally:
        streams.close()
