"""uvicorn over sessions: its own server, with streams for connections."""

from __future__ import annotations

import asyncio
import copy
import socket
from ssl import SSLContext
from typing import Any

from ..asyncio import Session
from ..extras import needs
from ._asgi import over_session
from ._idle import close_idle_when_draining

with needs("uvicorn"):
    import uvicorn

__all__ = ["Server"]


class Server(uvicorn.Server):
    """A `uvicorn.Server` that listens nowhere, and serves the sessions it is given.

    Its lifespan, signals, limits and graceful shutdown are uvicorn's own. Idle connections are
    closed when their session drains. The scope's `extensions["muxado"]` is a dict with the
    `session`, and the `peercert` of its connection.

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
        self._ended = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Run the application until it is told to exit. `sockets` are not used."""
        try:
            await super().serve(sockets)
        finally:
            self._ended = True
            self._ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and nothing else."""
        await super().startup(sockets=[])
        if self.started:  # older versions of uvicorn only return if it has failed
            self._ready.set()

    async def serve_session(self, session: Session, *, ssl: SSLContext | None = None) -> None:
        """Run the application for the streams that the peer opens, until the session ends.

        It waits until `serve` has started the application. Cancelled, it takes no more streams;
        connections that are open go on until uvicorn shuts down.

        Args:
            session: the session. It is left open.
            ssl: run TLS inside the streams, with this context's certificate. By default that is
                done if the config has uvicorn's own settings for TLS, such as `ssl_certfile`.

        Returns:
            when the session has ended in order, or the server shuts down.

        Raises:
            RuntimeError: the application has failed to start, or the server has ended before.
            SessionError: the session ended otherwise.
        """
        await self._ready.wait()
        if not self.started:
            raise RuntimeError("the application has not started: nothing is served")
        if self._ended or self.should_exit:
            raise RuntimeError("the server has ended: nothing is served")
        connections = _Connections(self, session)
        context = ssl if ssl is not None else self.config.ssl
        server = session.create_server(connections.new_protocol, ssl=context)
        self.servers.append(server)
        try:
            await server.serve_forever()
        finally:
            server.close()
            self.servers.remove(server)


class _Connections:
    """A server's connections over one session."""

    def __init__(self, server: Server, session: Session) -> None:
        self._server = server
        self._session = session
        # The protocols, and those of WebSockets, take the application from there.
        self._config = copy.copy(server.config)
        self._config.loaded_app = over_session(self._config.loaded_app, session)
        close_idle_when_draining(session, self)

    def new_protocol(self) -> asyncio.Protocol:
        """Return what runs one connection."""
        server = self._server
        new: Any = self._config.http_protocol_class
        protocol: asyncio.Protocol = new(
            config=self._config, server_state=server.server_state, app_state=server.lifespan.state
        )
        return protocol

    def close_idle(self) -> None:
        """Close the connections that are idle, and the others after their response."""
        websockets: Any = self._config.ws_protocol_class or ()
        connections: list[Any] = list(self._server.server_state.connections)
        for protocol in connections:
            ours = getattr(protocol, "config", None) is self._config
            if ours and not isinstance(protocol, websockets):
                protocol.shutdown()
