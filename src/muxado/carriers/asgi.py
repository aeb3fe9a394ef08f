"""Sessions over the WebSockets of an ASGI application: FastAPI, Starlette, Litestar and others.

It needs no library but the server that runs the application, such as uvicorn or hypercorn, with
the library that this one's WebSockets need.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from ..asyncio import Session
from ..config import Config
from ..endpoint import check_config, check_handler
from ..errors import ProtocolError
from ._pump import run
from ._rules import (
    ORDERLY_CODES,
    TEXT_RECEIVED,
    UNSUPPORTED,
    allows,
    check_origins,
    choose,
    subprotocols,
)
from .errors import WebSocketLost

__all__ = ["mount"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def mount(
    handler: Callable[[Session], Awaitable[object]],
    *,
    origins: Sequence[str] = (),
    config: Config | None = None,
) -> Application:
    """Return an ASGI application that runs `handler(session)` for the session over each WebSocket.

    ::

        app.mount("/mux", mount(handler))  # FastAPI and Starlette: clients dial wss://host/mux/

    A handler that returns closes its session; one that raises aborts it, and is logged.
    ``session.get_extra_info("scope")`` is the connection's scope, with its path, headers and
    what middleware has put there; ``"headers"`` is a dict of the headers, by lower-case name.

    Run the server without its own WebSocket pings and without compression, which cost time:
    uvicorn's ``--ws-ping-interval 0 --ws-per-message-deflate false``.

    Args:
        handler: a coroutine function.
        origins: the ``Origin`` headers that are taken, such as ``"https://app.example"``.
            Browsers send one with each WebSocket, so that by default no web page can connect;
            programs send none.
        config: the sessions' settings.

    Raises:
        UsageError: an argument can't be.
    """
    check_handler(handler)
    check_config(config)
    allowed = check_origins(origins)
    known = subprotocols(config)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await _answer_http(send)
        elif scope["type"] == "websocket":
            headers = headers_of(scope)
            taken, subprotocol = choose(scope.get("subprotocols") or (), known)
            await receive()  # websocket.connect
            if not taken or not allows(allowed, headers.get("origin")):
                await send({"type": "websocket.close", "code": 1008})  # HTTP status 403
                return
            await send({"type": "websocket.accept", "subprotocol": subprotocol})
            await run(_Messages(scope, headers, subprotocol, receive, send), handler, config)

    return application


def headers_of(scope: Scope) -> dict[str, str]:
    """Return a request's headers; of those with the same name, the last one."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in scope.get("headers") or ()
    }


async def _live(receive: Receive, send: Send) -> None:
    """Take part in a server's start and end, where this is all of an application."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer_http(send: Send) -> None:
    """Say that only WebSockets are served here."""
    headers = [(b"content-type", b"text/plain"), (b"upgrade", b"websocket")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": b"this is for WebSockets\n"})


class _Messages:
    """The messages of one connection."""

    def __init__(
        self,
        scope: Scope,
        headers: dict[str, str],
        subprotocol: str | None,
        receive: Receive,
        send: Send,
    ) -> None:
        client = scope.get("client")
        server = scope.get("server")
        self._info = {
            "scope": scope,
            "headers": headers,
            "subprotocol": subprotocol,
            "path": scope.get("path"),
            "peername": tuple(client) if client else None,
            "sockname": tuple(server) if server else None,
        }
        self._receive = receive
        self._send = send
        self._closed = False

    async def receive(self) -> bytes:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._closed = True
                code = message.get("code") or 1005
                # Where the connection was cut, 1006, what follows is the session's affair.
                if code in ORDERLY_CODES or code == 1006:
                    return b""
                raise WebSocketLost(code, message.get("reason") or "")
            data: bytes | None = message.get("bytes")
            if data:
                return data
            if message.get("text") is not None:
                await self.close(UNSUPPORTED)
                raise ProtocolError(TEXT_RECEIVED)

    async def send(self, data: bytes) -> None:
        if self._closed:
            raise ConnectionResetError("the WebSocket is closed")
        await self._send({"type": "websocket.send", "bytes": data})

    async def close(self, code: int) -> None:
        if self._closed:
            return
        self._closed = True
        # The servers' errors for a peer that is gone differ.
        with contextlib.suppress(Exception):
            await self._send({"type": "websocket.close", "code": code})

    def abort(self) -> None:
        """Leave it to `close`: a server can be told nothing else."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        found = self._info.get(name)
        return default if found is None else found
