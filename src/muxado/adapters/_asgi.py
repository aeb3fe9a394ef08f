"""What ASGI applications learn of the session that a request came by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..asyncio import Session

__all__ = ["over_session"]

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


def over_session(app: Callable[..., Awaitable[Any]], session: Session) -> Callable[..., Any]:
    """Return an ASGI application that is told of a session.

    Its scopes have the session's addresses, as far as they are a host and a port, and
    `extensions["muxado"]`: a dict of the `session` and its `peercert`, which is what
    `session.get_extra_info("peercert")` gives. While the session drains, responses end their
    connection.

    Args:
        app: the application, which may take more arguments after its scope.
        session: the session.
    """

    async def run(scope: dict[str, Any], receive: Any, send: Send, *more: Any) -> Any:
        if scope["type"] != "lifespan":
            about = {"session": session, "peercert": session.get_extra_info("peercert")}
            scope["extensions"] = {**(scope.get("extensions") or {}), "muxado": about}
            for key, address in (
                ("client", session.remote_address),
                ("server", session.local_address),
            ):
                if isinstance(address, tuple):  # IPv6's has more than a host and a port
                    scope[key] = address[:2]
            if scope["type"] == "http" and session.draining and _is_http_1(scope):
                send = _closing(send)
        return await app(scope, receive, send, *more)

    return run


def _is_http_1(scope: dict[str, Any]) -> bool:
    return str(scope["http_version"]).startswith("1")


def _closing(send: Send) -> Send:
    """Return a `send` whose response is the last of its connection."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, value)
                for name, value in message.get("headers", ())
                if name.lower() != b"connection"
            ]
            message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await send(message)

    return closing
