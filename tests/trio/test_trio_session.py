"""Sessions under trio: listeners of streams, whose tasks live and end with their block."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import muxado
import muxado.trio
from muxado import Config, ErrorCode
from muxado.testing import trio_pair
from muxado.trio import Session, Stream
from tests.core import peer
from tests.patience import patience


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    async for data in stream:
        await stream.send_all(data)


async def exchange(session: Session, request: bytes) -> bytes:
    async with session.open() as stream:
        await stream.send_all(request)
        await stream.send_eof()
        return b"".join([data async for data in stream])


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_nothing_outlives_its_block() -> None:
    before = tasks()
    async with trio_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, echo)
        assert await exchange(client, b"hello") == b"hello"
        assert tasks() > before
        client.close()
    assert tasks() == before


async def test_nothing_outlives_a_block_that_is_cancelled() -> None:
    before = tasks()
    near, far = trio.testing.memory_stream_pair()
    async with muxado.trio.server(far) as server:
        with trio.CancelScope() as scope:
            async with muxado.trio.client(near) as client:
                stream = client.open()
                await stream.send_all(b"x")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert client.closed
        await server.wait_closed()
        reason = server.close_reason
        assert reason is not None
        assert (reason.code, reason.by_peer) == (ErrorCode.STREAM_CANCELLED, True)
    assert tasks() == before


async def test_an_exception_comes_out_bare_and_aborts() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with muxado.trio.server(far) as server:
        with pytest.raises(ZeroDivisionError) as caught:
            async with muxado.trio.client(near):
                raise ZeroDivisionError
        assert type(caught.value) is ZeroDivisionError
        await server.wait_closed()
        assert server.close_reason is not None
        assert server.close_reason.code == ErrorCode.INTERNAL_ERROR


async def test_a_session_is_a_listener_for_trio() -> None:
    async with trio_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [server])
        for _ in range(3):
            assert await exchange(client, b"hello") == b"hello"
        nursery.cancel_scope.cancel()


async def test_accept_after_each_kind_of_end() -> None:
    async with trio_pair() as (client, server):
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError) as closed:
            await client.accept()
        assert isinstance(closed.value.__cause__, muxado.SessionClosed)
        with pytest.raises(trio.EndOfChannel) as ended:
            await server.accept()
        assert isinstance(ended.value.__cause__, muxado.SessionClosed)
        assert [stream async for stream in client] == []
        assert [stream async for stream in server] == []
    async with trio_pair() as (client, server):
        client.abort(7)
        with pytest.raises(trio.BrokenResourceError) as broken:
            await server.accept()
        assert isinstance(broken.value.__cause__, muxado.SessionAborted)
        with pytest.raises(trio.BrokenResourceError):
            await server.serve(echo)


async def test_a_cancelled_accept_loses_no_stream() -> None:
    async with trio_pair() as (client, server), client.open(eager=True) as stream:
        await client.ping()
        with trio.move_on_after(0):
            await server.accept()
        async with await server.accept() as other:
            assert other.id == stream.id


async def test_a_cancelled_serve_cancels_its_handlers() -> None:
    async with trio_pair() as (client, server), client.open(eager=True) as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, echo)
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            nursery.cancel_scope.cancel()
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        assert not server.closed


async def test_what_a_handler_wrote_last_is_sent_however_busy_the_session() -> None:
    last = bytes(100_000)

    async def answer(stream: Stream) -> None:
        await stream.send_all(last)

    async with trio_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, answer)
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append(await exchange(client, b""))

        async with trio.open_nursery() as asking:
            for _ in range(20):
                asking.start_soon(ask)
        assert replies == [last] * 20
        client.close()


async def test_cancelling_shutdown_leaves_the_session_draining() -> None:
    async with (
        trio_pair() as (client, server),
        client.open(eager=True) as near,
        await server.accept() as far,
    ):
        with trio.move_on_after(0.01):
            await client.shutdown()
        assert not client.closed
        await near.send_all(b"goes on")
        assert await far.receive_some() == b"goes on"


async def test_a_cancelled_aclose_aborts() -> None:
    async with trio_pair() as (client, server):
        stream = client.open()
        await stream.send_all(bytes(1 << 20))  # more than goes out
        with trio.move_on_after(0.01) as scope:
            await client.aclose()
        assert scope.cancelled_caught
        await client.wait_closed()
        await server.wait_closed()


async def test_abort_ends_a_write_that_the_transport_does_not_take() -> None:
    clogged, other = trio.testing.lockstep_stream_pair()  # takes nothing until it is read
    with trio.fail_after(patience(1)):
        async with muxado.trio.client(clogged) as client:
            stream = client.open()
            await stream.send_all(b"stuck")
            await trio.testing.wait_all_tasks_blocked()
            client.abort()
            await client.wait_closed()
    await other.aclose()


async def test_a_slow_transport_is_not_cut_off_in_the_middle_of_a_frame() -> None:
    slow, other = trio.testing.lockstep_stream_pair()
    data = bytes(100_000)
    # The pings' deadlines pass several times while one piece is on its way.
    config = Config(ping_interval=0.01, ping_timeout=patience(5))
    async with muxado.trio.client(slow, config=config) as client:
        near, far = trio.testing.memory_stream_pair()

        async def relay() -> None:
            # The rate of the link: the time is what the test is about.
            while piece := await other.receive_some(10_000):
                await trio.sleep(0.02)
                await near.send_all(piece)

        async def back() -> None:
            async for piece in near:
                await other.send_all(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay)
            nursery.start_soon(back)
            async with muxado.trio.server(far) as server, client.open() as stream:
                await stream.send_all(data)
                async with await server.accept() as arrived:
                    assert await arrived.readexactly(len(data)) == data
                client.abort()
                server.abort()
            nursery.cancel_scope.cancel()


def test_time_is_trios_own() -> None:
    async def main() -> None:
        async with trio_pair(Config(ping_interval=100, ping_timeout=50)) as (client, _):
            await trio.sleep(1000)  # at once, with ten pings and their answers
            assert not client.closed
            assert client.stats().frames_received >= 9

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_silent_peer_is_given_up() -> None:
    near, _ = trio.testing.memory_stream_pair()
    config = Config(ping_interval=0.01, ping_timeout=0.02)
    async with muxado.trio.client(near, config=config) as client:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.ping()
        assert isinstance(caught.value.__cause__, muxado.PeerTimeout)


async def test_a_transport_that_fails_in_an_unusual_way_ends_the_session() -> None:
    class Failing(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise OSError("unplugged")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async with muxado.trio.client(Failing()) as client:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.accept()
        assert "unplugged" in str(caught.value)


async def test_a_ping_under_way_fails_when_the_peer_uses_its_stream() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with muxado.trio.server(near) as session, trio.open_nursery() as nursery:

        async def take_the_stream() -> None:
            assert await far.receive_some()  # the ping
            await far.send_all(peer.data(1, b"mine", syn=True))

        nursery.start_soon(take_the_stream)
        with pytest.raises(muxado.UsageError, match="stream 1"):
            await session.ping()
        session.abort()
