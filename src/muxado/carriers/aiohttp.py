"""Sessions over the WebSockets of an aiohttp application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ..asyncio import Session
from ..config import Config
from ..endpoint import check_config, check_handler
from ..errors import ProtocolError
from ..extras import needs
from ._pump import run
from ._rules import (
    ORDERLY_CODES,
    RECEIVED_SIZE,
    TEXT_RECEIVED,
    UNSUPPORTED,
    allows,
    check_origins,
    choose,
    subprotocols,
)
from .errors import WebSocketLost

with needs("aiohttp"):
    from aiohttp import WSMsgType, web

__all__ = ["handler"]


def handler(
    handler: Callable[[Session], Awaitable[object]],
    *,
    origins: Sequence[str] = (),
    config: Config | None = None,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler for aiohttp that runs `handler(session)` for the session over a WebSocket.

    ::

        app.router.add_get("/mux", handler(serve_agent))

    A handler that returns closes its session; one that raises aborts it, and is logged.
    ``session.get_extra_info("request")`` is the request, ``"headers"`` its headers.

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

    async def respond(request: web.Request) -> web.StreamResponse:
        offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ())).split(",")
        taken, _ = choose(offered, known)
        if not taken or not allows(allowed, request.headers.get("Origin")):
            raise web.HTTPForbidden
        websocket = web.WebSocketResponse(
            protocols=known,
            compress=False,
            autoping=True,
            heartbeat=None,
            max_msg_size=RECEIVED_SIZE,
            # The session has waited for its end already.
            timeout=1.0,
        )
        await websocket.prepare(request)
        await run(_Messages(request, websocket), handler, config)
        return websocket

    return respond


class _Messages:
    """The messages of one connection."""

    def __init__(self, request: web.Request, websocket: web.WebSocketResponse) -> None:
        self._request = request
        self._websocket = websocket
        self._transport = request.transport
        self._info: dict[str, object] = {
            "request": request,
            "headers": request.headers,
            "subprotocol": websocket.ws_protocol,
            "path": request.path_qs,
        }

    async def receive(self) -> bytes:
        while True:
            message = await self._websocket.receive()
            if message.type is WSMsgType.BINARY:
                if message.data:
                    data: bytes = message.data
                    return data
            elif message.type is WSMsgType.TEXT:
                await self.close(UNSUPPORTED)
                raise ProtocolError(TEXT_RECEIVED)
            elif message.type is WSMsgType.ERROR:
                raise ProtocolError(f"the peer broke WebSocket's rules: {message.data}")
            else:
                code = self._websocket.close_code or 1005
                if code in ORDERLY_CODES or code == 1006:
                    return b""
                raise WebSocketLost(int(code), str(message.extra or ""))

    async def send(self, data: bytes) -> None:
        await self._websocket.send_bytes(data)

    async def close(self, code: int) -> None:
        if not self._websocket.closed:
            await self._websocket.close(code=code)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, name: str, default: object = None) -> object:
        found = self._info.get(name)
        if found is None and self._transport is not None:
            found = self._transport.get_extra_info(name)
        return default if found is None else found
