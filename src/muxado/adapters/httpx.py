"""httpx over a session: transports that open streams, for its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import asyncio as on_asyncio
from .. import sync
from ..extras import needs

with needs("httpx"):
    import httpx

    from .httpcore import AsyncBackend, Backend

if TYPE_CHECKING:
    from .. import trio as on_trio

__all__ = ["AsyncTransport", "Transport"]


class AsyncTransport(httpx.AsyncHTTPTransport):
    """Opens streams for `httpx.AsyncClient(transport=...)`, on asyncio and on trio.

    ::

        async with httpx.AsyncClient(transport=AsyncTransport(session)) as http:
            await http.get("http://any.name/path")

    `https` is TLS inside the stream. Closing the client leaves the session open.

    Args:
        session: a `muxado.Session`, or a `muxado.trio.Session` under trio.
        kwds: what `httpx.AsyncHTTPTransport` takes: `verify`, `http2`, `limits`, `retries` ...
    """

    def __init__(self, session: on_asyncio.Session | on_trio.Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        # httpcore has a parameter for it, which httpx doesn't pass on.
        self._pool._network_backend = AsyncBackend(session)


class Transport(httpx.HTTPTransport):
    """Opens streams for `httpx.Client(transport=...)`. See `AsyncTransport`.

    Args:
        session: a `muxado.sync.Session`.
        kwds: what `httpx.HTTPTransport` takes.
    """

    def __init__(self, session: sync.Session, **kwds: Any) -> None:
        super().__init__(**kwds)
        self._pool._network_backend = Backend(session)
