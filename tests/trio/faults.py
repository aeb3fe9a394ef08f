"""Transports that fail at one of their calls, and conversations that go over them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, NoReturn

import trio
import trio.testing

import muxado
import muxado.trio
from muxado.trio import Session, Stream
from tests.certificates import Tls

# What calls raise when their session ends under them.
ENDED = (
    muxado.MuxadoError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    EOFError,
)


class Faulty(trio.abc.HalfCloseableStream):
    """Passes everything on, but one call raises an error.

    Args:
        stream: the stream underneath.
        call: which call raises, 1 for the first.
        error: what it raises.
        late: raise when the call is done, and not before it begins.

    Attributes:
        calls: how many there were; None before the conversation has begun.
        session: the session that it carries.
        failed: True once the error was raised.
        reason: why that had ended already when the error was raised.
    """

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, call: int, error: BaseException, late: bool
    ) -> None:
        self._stream = stream
        self._call = call
        self._error = error
        self._late = late
        self.calls: int | None = None
        self.session: Session | None = None
        self.failed = False
        self.reason: muxado.CloseReason | None = None

    async def _do(self, call: Callable[..., Awaitable[Any]], *args: object) -> Any:
        fails = False
        if self.calls is not None:
            self.calls += 1
            fails = self.calls == self._call
        if fails and not self._late:
            self._fail()
        result = await call(*args)
        if fails:
            self._fail()
        return result

    def _fail(self) -> NoReturn:
        assert self.session is not None
        self.failed = True
        self.reason = self.session.close_reason
        raise self._error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data: bytes = await self._do(self._stream.receive_some, max_bytes)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._do(self._stream.send_all, bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._do(self._stream.send_eof)

    async def aclose(self) -> None:
        try:
            await self._do(self._stream.aclose)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def quietly(call: Callable[..., Awaitable[object]], *args: object) -> None:
    with contextlib.suppress(*ENDED):
        await call(*args)


async def exchange(session: Session, request: bytes) -> None:
    async with session.open() as stream:
        await stream.send_all(request)
        await stream.send_eof()
        assert await stream.readexactly(len(request)) == request


async def converse(session: Session, *, close: bool) -> None:
    """Serve, read and write at once, until the session ends; one side closes it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(quietly, session.serve, echo)
        nursery.start_soon(quietly, session.ping)
        async with trio.open_nursery() as asking:
            for _ in range(2):
                asking.start_soon(quietly, exchange, session, bytes(3000))
        if close:
            session.close()


class Outcome(NamedTuple):
    """How a conversation over a faulty transport ended."""

    reached: bool  # there were so many calls
    failed: bool  # it raised
    earlier: muxado.CloseReason | None
    reason: muxado.CloseReason | None
    raised: BaseException | None  # out of the session's block


async def converse_over(
    error: BaseException, call: int, *, late: bool, client: bool, tls: Tls | None
) -> Outcome:
    """Hold a conversation over a transport that fails at one of its calls."""
    near, far = trio.testing.memory_stream_pair()
    faulty = Faulty(near, call, error, late)
    here: trio.abc.Stream = faulty
    there: trio.abc.Stream = far
    if tls is not None:
        here, there = await secured(tls, faulty, far, client=client)
    ends = muxado.trio.client, muxado.trio.server
    mine, others = ends if client else ends[::-1]
    raised: BaseException | None = None

    async def peer() -> None:
        async with others(there) as session:
            await converse(session, close=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        try:
            async with mine(here) as session:
                faulty.session = session
                faulty.calls = 0
                await converse(session, close=True)
        except BaseException as exc:
            raised = exc
    reached = faulty.calls is not None and faulty.calls >= call
    return Outcome(reached, faulty.failed, faulty.reason, session.close_reason, raised)


async def secured(
    tls: Tls, near: trio.abc.Stream, far: trio.abc.Stream, *, client: bool
) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    def secure(stream: trio.abc.Stream, dialled: bool) -> trio.SSLStream[trio.abc.Stream]:
        context: ssl.SSLContext = tls.client if dialled else tls.server
        return trio.SSLStream(
            stream,
            context,
            server_hostname="localhost" if dialled else None,
            server_side=not dialled,
        )

    here, there = secure(near, client), secure(far, not client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.do_handshake)
        nursery.start_soon(there.do_handshake)
    return here, there
