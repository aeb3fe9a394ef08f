"""aiohttp's client over a session: a connector that opens streams."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest

from ..asyncio import Session
from ..errors import PeerTimeout

__all__ = ["Connector"]


class Connector(aiohttp.TCPConnector):
    """Opens a stream of a session for each connection, whatever host and port are asked for.

    ::

        async with aiohttp.ClientSession(connector=Connector(session)) as http:
            await http.get("http://any.name/path")

    `https` and `wss` are TLS inside the stream; the certificate is checked against the URL's
    host. Closing the connector leaves the session open. Proxies are not asked.

    Args:
        session: the session.
        kwds: what `aiohttp.TCPConnector` takes; what is about names and sockets is without
            effect.
    """

    def __init__(self, session: Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        self._muxado = session

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
        except PeerTimeout as exc:
            raise aiohttp.ClientConnectorError(key, exc) from exc
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
