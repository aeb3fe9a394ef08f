"""Messages behind their length, on the streams of every front end."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import muxado
import muxado.trio
from muxado.framing import LIMIT, MessageTooLong, receive_message, send_message
from muxado.testing import asyncio_pair, sync_pair, trio_pair
from tests.patience import patience

PATIENCE = patience(20)
MESSAGES = [b"hello", b"", b"x" * 1_000_000, b"\0\1\2", b""]


@asynccontextmanager
async def asyncio_streams() -> AsyncIterator[tuple[muxado.Stream, muxado.Stream]]:
    async with (
        asyncio.timeout(PATIENCE),
        asyncio_pair() as (client, server),
        client.open(eager=True) as near,
        await server.accept() as far,
    ):
        yield near, far


@asynccontextmanager
async def trio_streams() -> AsyncIterator[tuple[muxado.trio.Stream, muxado.trio.Stream]]:
    with trio.fail_after(PATIENCE):
        async with (
            trio_pair() as (client, server),
            client.open(eager=True) as near,
            await server.accept() as far,
        ):
            yield near, far


def raw(loop: str, stream: Any, data: bytes) -> Awaitable[None]:
    """Send bytes that are no message."""
    sending: Awaitable[None] = stream.write(data) if loop == "asyncio" else stream.send_all(data)
    return sending


def end(loop: str, stream: Any) -> None:
    """End the output; trio's own call for it waits, so the core's is taken."""
    if loop == "asyncio":
        stream.write_eof()
    else:
        stream._do(stream._core.finish)


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Runs an async test with the front end's name and a pair of its streams."""

    def run(test: Callable[..., Awaitable[None]]) -> None:
        streams = asyncio_streams if request.param == "asyncio" else trio_streams

        async def main() -> None:
            async with streams() as (near, far):
                await test(request.param, near, far)

        asyncio.run(main()) if request.param == "asyncio" else trio.run(main)

    return run


Run = Callable[[Callable[..., Awaitable[None]]], None]


def test_messages_come_whole_and_then_the_end(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        async def send() -> None:
            for message in MESSAGES:
                await send_message(near, message)
            end(loop, near)

        async def receive() -> list[bytes]:
            received = []
            while (message := await receive_message(far)) is not None:
                received.append(message)
            return received

        if loop == "asyncio":
            _, received = await asyncio.gather(send(), receive())
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                received = await receive()
        assert received == MESSAGES
        assert await receive_message(far) is None

    run(test)


def test_a_message_is_its_length_and_its_bytes(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        await send_message(near, bytearray(b"hello"))
        assert await far.readexactly(9) == b"\0\0\0\5hello"
        await raw(loop, near, b"\0\0\0")
        await raw(loop, near, b"\2h")
        await raw(loop, near, b"i\0\0\0\0")
        assert await receive_message(far) == b"hi"
        assert await receive_message(far) == b""

    run(test)


@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_an_end_inside_of_a_message_is_an_error(run: Run, cut: int) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        await raw(loop, near, b"\0\0\0\5hello"[:cut])
        end(loop, near)
        with pytest.raises(EOFError, match="ended after"):
            await receive_message(far)

    run(test)


def test_a_message_beyond_the_limit_resets_the_stream(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        await send_message(near, b"12345")
        assert await receive_message(far, limit=5) == b"12345"
        await raw(loop, near, b"\0\0\0\6")
        with pytest.raises(MessageTooLong) as caught:
            await receive_message(far, limit=5)
        assert (caught.value.size, caught.value.limit) == (6, 5)
        assert await near.wait_reset() == muxado.ErrorCode.ENHANCE_YOUR_CALM

    run(test)


def test_the_largest_length_takes_no_memory(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        await raw(loop, near, b"\xff\xff\xff\xff")
        with pytest.raises(MessageTooLong):
            await receive_message(far)

    run(test)


def test_sending_beyond_the_limit_sends_nothing(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        with pytest.raises(MessageTooLong):
            await send_message(near, b"123456", limit=5)
        with pytest.raises(MessageTooLong):
            await send_message(near, bytes(LIMIT + 1))
        await send_message(near, b"12345", limit=5)
        assert await receive_message(far) == b"12345"

    run(test)


def test_a_cancelled_receive_loses_nothing(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        framed = b"\0\0\0\5hello\0\0\0\2hi"
        for piece in (framed[:2], framed[2:4], framed[4:7], framed[7:11], framed[11:12]):
            await raw(loop, near, piece)
            if loop == "asyncio":
                task = asyncio.create_task(receive_message(far))
                await near.session.ping()  # what was sent is there
                if task.done():
                    assert task.result() == b"hello"
                    continue
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            else:
                async with trio.open_nursery() as nursery:
                    received: list[bytes | None] = []

                    async def receive(received: list[bytes | None] = received) -> None:
                        received.append(await receive_message(far))

                    nursery.start_soon(receive)
                    await near.session.ping()
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                assert received in ([], [b"hello"])
        await raw(loop, near, framed[12:])
        assert await receive_message(far) == b"hi"

    run(test)


def test_a_pending_message_is_measured_by_the_next_calls_limit(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        await raw(loop, near, b"\0\0\0\6h")
        await near.session.ping()
        if loop == "asyncio":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive_message(far), 0.01)
        else:
            with trio.move_on_after(0.01):
                await receive_message(far)
        with pytest.raises(MessageTooLong):
            await receive_message(far, limit=5)

    run(test)


def test_two_readers_are_one_too_many(run: Run) -> None:
    async def test(loop: str, near: Any, far: Any) -> None:
        busy = muxado.StreamBusy if loop == "asyncio" else trio.BusyResourceError
        await raw(loop, near, b"\0\0\0\5h")
        if loop == "asyncio":
            task = asyncio.create_task(receive_message(far))
            await near.session.ping()
            with pytest.raises(busy):
                await receive_message(far)
            await raw(loop, near, b"ello")
            assert await task == b"hello"
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_message, far)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(busy):
                    await receive_message(far)
                await raw(loop, near, b"ello")

    run(test)


# Threads


def test_threads_exchange_messages() -> None:
    with sync_pair() as (client, server), client.open(eager=True) as near:
        near.settimeout(PATIENCE)
        with server.accept(PATIENCE) as far:
            far.settimeout(PATIENCE)

            def send() -> None:
                for message in MESSAGES:
                    send_message(near, message)
                near.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=send)
            thread.start()
            assert [receive_message(far) for _ in MESSAGES] == MESSAGES
            assert receive_message(far) is None
            thread.join()


def test_threads_a_timeout_loses_nothing() -> None:
    with (
        sync_pair() as (client, server),
        client.open(eager=True) as near,
        server.accept(PATIENCE) as far,
    ):
        for piece in (b"\0\0", b"\0\5", b"he"):
            near.sendall(piece)
            far.settimeout(0.02)
            with pytest.raises(TimeoutError):
                receive_message(far)
        near.sendall(b"llo\0\0\0\0\0")
        far.settimeout(PATIENCE)
        assert receive_message(far) == b"hello"
        assert receive_message(far) == b""
        near.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError, match="1 of 4 bytes of the length"):
            receive_message(far)


def test_threads_a_message_beyond_the_limit_resets_the_stream() -> None:
    with (
        sync_pair() as (client, server),
        client.open(eager=True) as near,
        server.accept(PATIENCE) as far,
    ):
        far.settimeout(PATIENCE)
        with pytest.raises(MessageTooLong):
            send_message(near, b"123456", limit=5)
        send_message(near, b"123456")
        with pytest.raises(MessageTooLong):
            receive_message(far, limit=5)
        assert near.wait_reset(PATIENCE) == muxado.ErrorCode.ENHANCE_YOUR_CALM


# Wrong use


@pytest.mark.parametrize("limit", [-1, 2**32, 1.5, None, True])
def test_a_limit_that_cannot_be_is_refused(limit: Any) -> None:
    with sync_pair() as (client, _), client.open() as stream:
        with pytest.raises(muxado.UsageError, match="limit="):
            send_message(stream, b"x", limit=limit)
        with pytest.raises(muxado.UsageError, match="limit="):
            receive_message(stream, limit=limit)


def test_other_streams_are_refused_at_once() -> None:
    with socket.socket() as sock:
        with pytest.raises(muxado.UsageError, match="muxado's own streams"):
            send_message(sock, b"x")  # type: ignore[call-overload]
        with pytest.raises(muxado.UsageError, match="muxado's own streams"):
            receive_message(sock)  # type: ignore[call-overload]


def test_the_error_is_a_value_error_that_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(MessageTooLong(6, 5)))
    assert isinstance(error, ValueError)
    assert isinstance(error, MessageTooLong)
    assert (error.size, error.limit, error.code) == (6, 5, muxado.ErrorCode.ENHANCE_YOUR_CALM)
    assert str(error) == "a message of 6 bytes, where 5 are allowed"
