"""Clients that come by WebSockets: past what lets only the web through."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ..asyncio import Server as Listening
from ..asyncio import Session
from ..config import Config
from ..errors import UsageError
from .invitations import Place, parse_place
from .pins import HTTP, server_context

__all__ = ["parse_web", "serve_web"]


def parse_web(url: str) -> tuple[Place, bool]:
    """Return where to listen, and whether with the server's own key, of a ``--websocket``.

    Args:
        url: ``ws://HOST:PORT``, behind a proxy that ends TLS, or ``wss://HOST:PORT``.

    Raises:
        UsageError: it is neither.
    """
    scheme, _, place = url.partition("://")
    if scheme not in ("ws", "wss"):
        raise UsageError(f"it takes ws://HOST:PORT or wss://HOST:PORT, not {url!r:.80}")
    return parse_place(place.rstrip("/")), scheme == "wss"


def serve_web(
    handler: Callable[[Session], Awaitable[object]],
    url: str,
    key: Path,
    config: Config,
    *,
    shared: bool,
) -> AbstractAsyncContextManager[Listening]:
    """Listen for WebSockets, of any path, while the block runs.

    Args:
        handler: is given each session.
        url: where; see `parse_web`.
        key: the file with the server's key and certificate.
        config: the sessions' settings.
        shared: whether other processes listen there too.

    Raises:
        UsageError: there can't be such a URL.
        ImportError: the extra `websockets` is missing.
        OSError: the address can't be listened on.
    """
    from ..carriers.websockets import serve

    (host, port), secured = parse_web(url)
    context = server_context(os.fspath(key), HTTP) if secured else None
    return serve(handler, host, port, ssl=context, config=config, reuse_port=shared)
