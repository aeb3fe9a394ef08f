"""anyio's code over streams, on asyncio, uvloop and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream

import muxado
import muxado.trio
from muxado.adapters.anyio import ByteStream, StreamListener
from tests.bounded import LOOPS

from .conftest import Tls

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture(params=[*LOOPS, pytest.param(("trio", {}), id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Pair(NamedTuple):
    near: Any
    far: Any


@pytest.fixture
async def pair(anyio_backend_name: str) -> AsyncIterator[Pair]:
    """Two sessions of the event loop that the test runs on."""
    module: Any = muxado.trio if anyio_backend_name == "trio" else muxado
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(module.listen("127.0.0.1", 0))
        host, port = listener.addresses[0]
        near = await stack.enter_async_context(module.connect(host, port))
        far = await listener.accept()
        if anyio_backend_name != "trio":
            await stack.enter_async_context(far)
        yield Pair(near, far)


async def echo(stream: ByteStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


async def test_a_listener_serves_streams(pair: Pair) -> None:
    listener = StreamListener(pair.far)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)

        async def ask(text: bytes) -> None:
            async with ByteStream(pair.near.open()) as stream:
                await stream.send(text)
                await stream.send_eof()
                assert b"".join([data async for data in stream]) == text

        async with anyio.create_task_group() as asking:
            for number in range(20):
                asking.start_soon(ask, b"number %d" % number)
        await listener.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await listener.serve(echo)
    assert not pair.far.closed


async def test_a_listener_ends_with_its_session(pair: Pair) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(StreamListener(pair.far).serve, echo, group)
        pair.near.close()


async def test_a_listener_whose_session_breaks_off(pair: Pair) -> None:
    pair.near.abort(2)
    with pytest.raises(anyio.BrokenResourceError) as caught:
        await StreamListener(pair.far).serve(echo)
    assert isinstance(caught.value.__cause__, muxado.SessionError)


async def test_more_than_a_window(pair: Pair) -> None:
    data = bytes(range(256)) * (4 * MIB // 256)
    near = ByteStream(pair.near.open(eager=True))
    async with near, anyio.create_task_group() as group:

        async def send() -> None:
            await near.send(data)
            await near.send_eof()

        group.start_soon(send)
        async with ByteStream(await pair.far.accept()) as far:
            assert b"".join([piece async for piece in far]) == data


async def test_errors(pair: Pair) -> None:
    near = ByteStream(pair.near.open(eager=True))
    far = ByteStream(await pair.far.accept())
    with pytest.raises(ValueError, match="max_bytes"):
        await near.receive(0)
    await far.send(b"12345")
    assert await near.receive(3) == b"123"
    await far.send_eof()
    await far.send_eof()
    with pytest.raises(anyio.ClosedResourceError):
        await far.send(b"more")
    assert await near.receive() == b"45"
    with pytest.raises(anyio.EndOfStream):
        await near.receive()
    far.stream.reset(7)
    await pair.near.ping()
    with pytest.raises(anyio.BrokenResourceError) as caught:
        await near.send(b"more")
    assert isinstance(caught.value.__cause__, muxado.StreamReset)
    await near.aclose()
    await near.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await near.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await near.send(b"")
    with pytest.raises(anyio.ClosedResourceError):
        await near.send_eof()
    await far.aclose()


async def test_one_reader_at_a_time(pair: Pair) -> None:
    async with (
        ByteStream(pair.near.open(eager=True)) as near,
        ByteStream(await pair.far.accept()) as far,
        anyio.create_task_group() as group,
    ):
        group.start_soon(near.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await near.receive()
        await far.send(b"x")


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    async with (
        ByteStream(pair.near.open(eager=True)) as near,
        ByteStream(await pair.far.accept()) as far,
    ):
        with anyio.move_on_after(0.01) as scope:
            await near.receive()
        assert scope.cancelled_caught
        await far.send(b"kept")
        assert await near.receive() == b"kept"


async def test_what_an_exception_cuts_off_does_not_look_whole(pair: Pair) -> None:
    near = ByteStream(pair.near.open())
    await near.send(b"the first half")
    async with ByteStream(await pair.far.accept()) as far:
        assert await far.receive() == b"the first half"
        with pytest.raises(ZeroDivisionError):
            async with near:
                raise ZeroDivisionError
        with pytest.raises(anyio.BrokenResourceError):
            await far.receive()


async def test_extra_attributes(pair: Pair) -> None:
    address = anyio.abc.SocketAttribute
    async with (
        ByteStream(pair.near.open(eager=True)) as near,
        ByteStream(await pair.far.accept()) as far,
    ):
        assert near.extra(address.remote_address) == far.extra(address.local_address)
        assert StreamListener(pair.far).extra(address.remote_address) == near.extra(
            address.local_address
        )


async def test_anyios_own_wrappers(pair: Pair, tls: Tls) -> None:
    """TLS inside a stream, and buffered reading inside that."""

    async def serve(stream: ByteStream) -> None:
        async with await TLSStream.wrap(
            stream, server_side=True, ssl_context=tls.server
        ) as secured:
            await secured.send(await secured.receive())

    async with anyio.create_task_group() as group:
        listener = StreamListener(pair.far)
        group.start_soon(listener.serve, serve)
        async with await TLSStream.wrap(
            ByteStream(pair.near.open()),
            hostname="service.internal",
            ssl_context=tls.client,
        ) as secured:
            await secured.send(b"one\ntwo\n")
            lines = BufferedByteReceiveStream(secured)
            assert await lines.receive_until(b"\n", 10) == b"one"
            assert await lines.receive_until(b"\n", 10) == b"two"
        await listener.aclose()
