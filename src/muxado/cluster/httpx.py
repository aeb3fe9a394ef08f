"""httpx by name: a URL's host is the name of a session, on whichever server it is.

Install ``muxado[httpx]``.
"""

from __future__ import annotations

from typing import Any

from ..adapters.httpcore import AsyncBackend
from ..asyncio import Stream
from ..extras import needs
from .node import Node

with needs("httpx"):
    import httpx

__all__ = ["Transport"]


class Transport(httpx.AsyncHTTPTransport):
    """Opens streams by name for `httpx.AsyncClient(transport=...)`.

    ::

        async with httpx.AsyncClient(transport=Transport(node)) as http:
            await http.get("http://web-17/status")

    The first label of the host is the name; the port is not looked at. Each request has a stream of
    its own, so that a session which moves to another server has no idle ones, unless `limits` says
    otherwise. What `Node.open` raises is an `httpx.ConnectError`: nothing was sent.

    Args:
        node: this server.
        service: the service that is asked for.
        kwds: what `httpx.AsyncHTTPTransport` takes.
    """

    def __init__(self, node: Node, *, service: str = "http", **kwds: Any) -> None:
        kwds.setdefault("limits", httpx.Limits(max_keepalive_connections=0))
        super().__init__(**kwds)
        # httpcore has a parameter for it, which httpx doesn't pass on.
        self._pool._network_backend = Backend(node, service)


class Backend(AsyncBackend):
    """Opens streams by name for httpcore."""

    def __init__(self, node: Node, service: str) -> None:
        self._node = node
        self._service = service

    async def _open(self, host: str, timeout: float | None) -> Stream:
        return await self._node.open(host.partition(".")[0], self._service, timeout=timeout)
