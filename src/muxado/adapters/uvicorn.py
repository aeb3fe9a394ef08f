"""uvicorn over sessions: its own server, with streams for connections."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn

from ..asyncio import Session

__all__ = ["Server"]


class Server(uvicorn.Server):
    """A `uvicorn.Server` that listens nowhere, and serves the sessions it is given.

    Its lifespan, signals, limits and graceful shutdown are uvicorn's own.

    ::

        server = Server(uvicorn.Config(app))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve())
            await server.serve_session(session)  # as many as there are
            server.should_exit = True
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.servers: list[Any] = []
        self._ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and nothing else."""
        await super().startup(sockets=[])
        self._ready.set()

    async def serve_session(self, session: Session) -> None:
        """Run the application for the streams that the peer opens, until the session ends.

        It waits until `serve` has started the application. Cancelled, it takes no more streams;
        connections that are open go on until uvicorn shuts down.

        Args:
            session: the session. It is left open.

        Returns:
            when the session has ended in order.

        Raises:
            SessionError: the session ended otherwise.
        """
        await self._ready.wait()
        server = session.create_server(self._new_protocol)
        self.servers.append(server)
        try:
            await server.serve_forever()
        finally:
            server.close()
            self.servers.remove(server)

    def _new_protocol(self) -> asyncio.Protocol:
        new: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = new(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
