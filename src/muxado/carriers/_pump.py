"""A session over messages that are received and sent by calls that wait: two tasks carry it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from ..asyncio import Session, server
from ..config import AUTO, Config
from ..front_end import log_session_failure
from ._rules import INTERNAL_ERROR, NORMAL, pieces, wire_of

CLOSE_TIMEOUT = 1.0  # seconds for the close frame of a session that is over


class Messages(Protocol):
    """A WebSocket whose handshake is done."""

    async def receive(self) -> bytes:
        """Return the next message's bytes, b"" once the peer has ended it in order."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a message, waiting while the connection takes no more."""
        ...

    async def close(self, code: int) -> None:
        """Close it; nothing happens if it is closed."""
        ...

    def abort(self) -> None:
        """End it at once, as far as that can be had."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what is known of the connection."""
        ...


class Reader:
    """Reads the session's bytes; an empty message does not end them."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def read(self, n: int) -> bytes:
        return await self._messages.receive()


class Writer:
    """Sends the session's bytes.

    It stands for its own transport too, which a session aborts.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages: Messages = messages
        self._data = b""
        self._ended = asyncio.Event()
        self._aborted = False
        self.get_extra_info = messages.get_extra_info

    @property
    def transport(self) -> Writer:
        return self

    def write(self, data: bytes) -> None:
        self._data += data

    async def drain(self) -> None:
        data, self._data = self._data, b""
        for piece in pieces(data):
            await self._messages.send(piece)

    def close(self) -> None:
        self._ended.set()

    def is_closing(self) -> bool:
        return self._ended.is_set()

    def get_write_buffer_size(self) -> int:
        return len(self._data)

    def abort(self) -> None:
        self._aborted = True
        self._ended.set()
        self._messages.abort()

    async def wait_ended(self) -> int:
        """Wait until the session writes no more; return the code to close the WebSocket with."""
        await self._ended.wait()
        return INTERNAL_ERROR if self._aborted else NORMAL


async def run(
    messages: Messages, handler: Callable[[Session], Awaitable[object]], config: Config | None
) -> None:
    """Run a handler for the session over a WebSocket, and close both."""
    writer = Writer(messages)
    wire = wire_of(messages.get_extra_info("subprotocol"))
    if config is not None and config.wire == AUTO and wire is not None:
        config = replace(config, wire=wire)
    session = server(Reader(messages), writer, config=config)
    closing = asyncio.get_running_loop().create_task(_close(messages, writer), name="muxado close")
    try:
        try:
            async with session:
                await handler(session)
        except Exception as exc:
            log_session_failure(session, exc)
    finally:
        session.abort()
        await session.wait_closed()
        _, late = await asyncio.wait([closing], timeout=CLOSE_TIMEOUT)
        for task in late:
            task.cancel()


async def _close(messages: Messages, writer: Writer) -> None:
    await messages.close(await writer.wait_ended())
