"""aiohttp over a session: a connector that opens streams, and its server for those of the peer."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from ..asyncio import Session
from ..asyncio.protocol_streams import StreamServer
from ..extras import needs
from ._idle import close_idle_when_draining

with needs("aiohttp"):
    import aiohttp
    import aiohttp.web
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest

__all__ = ["Connector", "create_server"]


class Connector(aiohttp.TCPConnector):
    """Opens a stream of a session for each connection, whatever host and port are asked for.

    ::

        async with aiohttp.ClientSession(connector=Connector(session)) as http:
            await http.get("http://any.name/path")

    `https` and `wss` are TLS inside the stream; the certificate is checked against the URL's
    host. Closing the connector leaves the session open. Idle connections are closed when the
    session drains. Proxies are not asked.

    Args:
        session: the session.
        kwds: what `aiohttp.TCPConnector` takes; what is about names and sockets is without
            effect.
    """

    def __init__(self, session: Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        self._muxado = session
        close_idle_when_draining(session, self)

    def close_idle(self) -> None:
        """Close the connections that wait for a request."""
        for connections in self._conns.values():
            for protocol, _ in connections:
                protocol.close()

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        should_close = should_close or self._muxado.draining
        super()._release(key, protocol, should_close=should_close)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        context = self._get_ssl_context(req)
        name = (req.server_hostname or req.url.raw_host or "").rstrip(".")
        key = req.connection_key
        try:
            async with asyncio.timeout(timeout.sock_connect):
                transport, protocol = await self._muxado.create_connection(
                    self._factory,
                    ssl=context,
                    server_hostname=name if context else None,
                )
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError("the TLS handshake took too long") from exc
        except ssl.CertificateError as exc:
            raise aiohttp.ClientConnectorCertificateError(key, exc) from exc
        except ssl.SSLError as exc:
            raise aiohttp.ClientConnectorSSLError(key, exc) from exc
        except OSError as exc:
            raise aiohttp.ClientConnectorError(key, exc) from exc
        fingerprint = self._get_fingerprint(req)
        if context is not None and fingerprint is not None:
            try:
                fingerprint.check(transport)
            except aiohttp.ServerFingerprintMismatch:
                transport.abort()
                raise
        return protocol


def create_server(
    session: Session, server: aiohttp.web.Server, *, ssl: ssl.SSLContext | None = None
) -> StreamServer:
    """Run an aiohttp server for the streams that the peer opens.

    It is `session.create_server(server)`, and closes idle connections when the session drains.

    ::

        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        await create_server(session, runner.server).serve_forever()

    Args:
        session: the session. It is left open.
        server: what makes a protocol for each connection; it may serve many sessions.
        ssl: run TLS inside the streams, with this context's certificate.

    Returns:
        the server, to be closed, or waited for with `serve_forever`.
    """
    connections = _Connections(session, server)
    return session.create_server(connections.new_protocol, ssl=ssl)


class _Connections:
    """A server's connections over one session."""

    def __init__(self, session: Session, server: aiohttp.web.Server) -> None:
        self._session = session
        self._server = server
        close_idle_when_draining(session, self)

    def new_protocol(self) -> asyncio.Protocol:
        """Return what runs one connection."""
        handler = self._server()
        if self._session.draining:
            handler._keepalive_timeout = 0.0
        return handler

    def close_idle(self) -> None:
        """Close the connections that are idle, and the others after their response."""
        # What begins in this very turn of the loop is seen for what it is after it.
        asyncio.get_running_loop().call_soon(self._close_idle)

    def _close_idle(self) -> None:
        for handler in self._server.connections:
            transport = handler.transport
            if transport and transport.get_extra_info("muxado_session") is self._session:
                if handler._waiter is not None and not handler._messages:
                    handler.force_close()
                else:
                    handler.close()
