"""What the front ends ask for and offer in a WebSocket's handshake."""

from __future__ import annotations

import logging
import ssl as ssl_module
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...config import Config
from ...endpoint import Target, check_config, dial_target
from ...errors import UsageError
from ...extras import needs
from ...registry import check_name
from .._rules import RECEIVED_SIZE, check_origins, choose, subprotocols
from ._conversation import Conversation

with needs("websockets"):
    from websockets.client import ClientProtocol
    from websockets.exceptions import NegotiationError
    from websockets.server import ServerProtocol
    from websockets.typing import Origin, Subprotocol
    from websockets.uri import WebSocketURI, parse_uri

__all__ = ["Dial", "check_dial", "check_listening"]

# The library's own log has the request's path and headers, which may hold secrets.
silent: logging.Logger = logging.Logger("muxado.carriers.websockets")
silent.disabled = True

ALPN = "http/1.1"


class Dial(NamedTuple):
    """What is dialled.

    Attributes:
        target: where the connection goes.
        new_conversation: begins the WebSocket over it.
    """

    target: Target
    new_conversation: Callable[[], Conversation]


def check_dial(
    url: str,
    headers: Mapping[str, str] | None,
    ssl: ssl_module.SSLContext | bool | None,
    server_hostname: str | None,
    config: Config | None,
    timeout: float | None,
    name: str,
    proxy: str | None,
) -> Dial:
    """Check the arguments of `connect`.

    Raises:
        UsageError: an argument can't be.
    """
    uri = _check_url(url)
    check_name(name)
    if uri.secure:
        if ssl is False:
            raise UsageError("ssl=False with a wss:// URL: use ws:// for a connection without TLS")
        ssl = _web_context() if ssl is None or ssl is True else ssl
    elif ssl:
        raise UsageError("ssl= is for wss:// URLs")
    target = dial_target(
        uri.host, uri.port, None, None, ssl, server_hostname, timeout, config, proxy
    )
    target = replace(target, alpn=ALPN if target.context is not None else "")
    dial = Dial(target, partial(_client, uri, _check_headers(headers), subprotocols(config)))
    dial.new_conversation()  # a bad URL or header shows here
    return dial


def check_listening(origins: object, config: Config | None) -> Callable[[], Conversation]:
    """Check the arguments of `serve`, and return what takes part in a client's handshake.

    Raises:
        UsageError: an argument can't be.
    """
    check_config(config)
    allowed: list[Any] = [None, *map(Origin, check_origins(origins))]
    return partial(_server, allowed, subprotocols(config))


def _check_url(url: object) -> WebSocketURI:
    """Return a URL in its parts.

    Raises:
        UsageError: it is no WebSocket's URL. The error does not repeat it: it may hold secrets.
    """
    if not isinstance(url, str):
        raise UsageError("the URL must be a string that begins with ws:// or wss://")
    if urlsplit(url).scheme not in ("ws", "wss"):
        raise UsageError("the URL must begin with ws:// or wss://")
    try:
        return parse_uri(url)
    except Exception:
        raise UsageError("the URL is not one of a WebSocket, such as wss://host/path") from None


def _check_headers(headers: object) -> dict[str, str]:
    """Return a handshake's further headers.

    Raises:
        UsageError: they are no mapping of strings, or would end their line.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise UsageError("headers= must be a mapping of strings")
    found = dict(headers)
    for header, value in found.items():
        if not isinstance(header, str) or not isinstance(value, str):
            raise UsageError("headers= must be a mapping of strings")
        if not header or any(mark in header + value for mark in "\r\n\0"):
            raise UsageError(f"the header {header!r} can't be sent")
    return found


def _web_context() -> ssl_module.SSLContext:
    """Return a context that verifies, and offers HTTP."""
    context = ssl_module.create_default_context()
    context.set_alpn_protocols([ALPN])
    return context


def _client(uri: WebSocketURI, headers: dict[str, str], offered: tuple[str, ...]) -> Conversation:
    protocol = ClientProtocol(
        uri,
        subprotocols=[Subprotocol(each) for each in offered],
        max_size=RECEIVED_SIZE,
        logger=silent,
    )
    request = protocol.connect()
    for header, value in headers.items():
        if header in request.headers:
            del request.headers[header]
        request.headers[header] = value
    return Conversation(protocol, request)


def _server(origins: list[Any], known: tuple[str, ...]) -> Conversation:
    def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        taken, chosen = choose(offered, known)
        if not taken:
            raise NegotiationError(f"the subprotocol must be {known[0]!r}")
        return None if chosen is None else Subprotocol(chosen)

    protocol = ServerProtocol(
        origins=origins,
        subprotocols=[Subprotocol(each) for each in known],
        select_subprotocol=select,
        max_size=RECEIVED_SIZE,
        logger=silent,
    )
    return Conversation(protocol)
