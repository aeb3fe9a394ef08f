"""The control stream: the first stream of a session, on which both ends say lines to each other.

Who has dialled opens it and says `hello`; who is dialled answers `ok` or `error`. It is closed when
the session drains, so that it holds no shutdown up.
"""

from __future__ import annotations

import asyncio

from ..asyncio import Session, Stream
from ..errors import ErrorCode, MuxadoError
from .errors import Denied, HeaderError
from .lines import MESSAGE_LIMIT, VERSION, Message, check_version

__all__ = ["Control", "join", "welcome"]


class Control:
    """One end of a control stream. Iterating over it gives the other's messages until it ends."""

    def __init__(self, stream: Stream) -> None:
        """Not for users: `join` and `welcome` make it."""
        self._stream = stream
        stream.session.on_draining(stream.close)

    @property
    def session(self) -> Session:
        """The session that it belongs to."""
        return self._stream.session

    def say(self, type: str, **fields: object) -> bool:
        """Say something, without waiting; return False if it can't be said any more.

        What is said while the session has not said much of the last messages is dropped.
        """
        try:
            return self._stream.write_nowait(Message(type, fields).pack())
        except MuxadoError:
            return False

    def __aiter__(self) -> Control:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except (EOFError, MuxadoError):
            self._stream.close()
            raise StopAsyncIteration from None

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            EOFError: there is no more.
            HeaderError: it is no message, or too long.

        Otherwise it raises as the stream's own reading.
        """
        try:
            line = await self._stream.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            raise EOFError("the control stream has ended") from None
        except asyncio.LimitOverrunError as exc:
            self._stream.reset(ErrorCode.ENHANCE_YOUR_CALM)
            raise HeaderError(f"a message of more than {MESSAGE_LIMIT} bytes") from exc
        return Message.unpack(line)

    def close(self) -> None:
        """Say nothing any more. Harmless if repeated."""
        self._stream.close()


async def join(session: Session, **fields: object) -> tuple[Control, Message]:
    """Say hello on a session that was dialled, and wait for the answer.

    Args:
        session: the session; nothing was opened on it yet.
        fields: what hello says besides the version.

    Returns:
        the control stream, and the `ok`.

    Raises:
        Denied: the other side says `error`.
        HeaderError: it says something else.
        EOFError: it says nothing.
    """
    control = Control(session.open())
    if not control.say("hello", version=VERSION, **fields):
        raise EOFError("the session has ended")
    answer = await control.receive()
    if answer.type == "error":
        code = answer.fields.get("code")
        raise Denied(answer.text("text"), code if type(code) is int else 403)
    if answer.type != "ok":
        raise HeaderError(f"hello was answered by {answer.type!r:.40}")
    return control, answer


async def welcome(session: Session, *, timeout: float = 10.0) -> tuple[Control, Message]:
    """Wait for hello on a session that was accepted. The caller says `ok` or `error`.

    Args:
        session: the session; nothing was accepted from it yet.
        timeout: seconds.

    Returns:
        the control stream, and the `hello`.

    Raises:
        HeaderError: something else comes, or a version that can't be talked to.
        EOFError: nothing comes.
        TimeoutError: nothing comes in time.
    """
    async with asyncio.timeout(timeout):
        control = Control(await session.accept())
        hello = await control.receive()
    if hello.type != "hello":
        raise HeaderError(f"the first message must be hello, not {hello.type!r:.40}")
    check_version(hello)
    return control, hello
