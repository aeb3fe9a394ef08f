"""`muxado.Relay` between a stream and a socket: ends, resets, back-pressure, and what it costs."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import socket
from contextlib import suppress
from time import time

import pytest

import muxado
from muxado import ErrorCode, Relay, RelayResult, Stream
from muxado.testing import asyncio_pair

from .relayed import KIB, WINDOW, Scene, User, relayed

pytestmark = pytest.mark.anyio

MIB = 1024 * KIB
KINDS = ["tcp", "unix"]

# Bytes that may be under way between a peer that writes and a user that reads nothing: two windows
# and two queues of streams, a piece that the relay has taken, the transport's buffer, the sockets'.
MOST_UNDER_WAY = 4 * WINDOW + 256 * KIB + 64 * KIB + 512 * KIB


async def refused(user: User) -> bytes:
    """Read until the connection is reset; return what came before."""
    data = b""
    try:
        while True:
            piece = await user.receive()
            assert piece, f"a clean end after {data!r}"
            data += piece
    except ConnectionError:
        return data


@pytest.mark.parametrize("kind", KINDS)
async def test_a_user_that_has_said_its_end_gets_the_whole_reply(kind: str) -> None:
    before = time()
    async with relayed(kind) as scene:
        await scene.user.send(b"question")
        scene.user.end()
        assert await scene.peer.read() == b"question"
        writing = asyncio.create_task(scene.peer.write(bytes(MIB)))
        assert await scene.user.receive_exactly(MIB) == bytes(MIB)
        await writing
        scene.peer.write_eof()
        assert await scene.user.receive() == b""
        result = await scene.result()
    assert (result.ended, result.to_stream, result.from_stream) == ("end", 8, MIB)
    assert (result.code, result.error, result.reset_lost) == (None, None, False)
    assert result.last_byte_at is not None
    assert before - 1 <= result.started_at <= result.last_byte_at <= time() + 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_has_said_its_end_gets_the_whole_reply(kind: str) -> None:
    async with relayed(kind) as scene:
        await scene.peer.write(b"question")
        scene.peer.write_eof()
        assert await scene.user.receive_all() == b"question"
        sending = asyncio.create_task(scene.user.send(bytes(MIB)))
        assert await scene.peer.readexactly(MIB) == bytes(MIB)
        await sending
        scene.user.end()
        assert await scene.peer.read() == b""
        result = await scene.result()
    assert (result.ended, result.to_stream, result.from_stream) == ("end", MIB, 8)


async def test_nothing_passed_on_has_no_last_byte() -> None:
    async with relayed() as scene:
        scene.user.end()
        scene.peer.write_eof()
        assert await scene.peer.read() == await scene.user.receive() == b""
        result = await scene.result()
    assert (result.ended, result.last_byte_at) == ("end", None)


async def test_on_end_is_called_with_the_result() -> None:
    ended: asyncio.Future[RelayResult] = asyncio.get_running_loop().create_future()
    async with relayed(on_end=ended.set_result) as scene:
        assert scene.relay.result is None
        scene.user.end()
        scene.peer.write_eof()
        result = await ended
        assert result is scene.relay.result is await scene.result()


# Resets


@pytest.mark.parametrize("half_closed", ["neither", "peer"])
async def test_a_reset_connection_resets_the_stream(half_closed: str) -> None:
    async with relayed() as scene:
        await scene.user.send(b"x")
        assert await scene.peer.read(1) == b"x"
        if half_closed == "peer":
            scene.peer.write_eof()
            assert await scene.user.receive() == b""
        scene.user.reset()
        with pytest.raises(muxado.StreamReset) as caught:
            await scene.peer.read()
        assert caught.value.code == ErrorCode.STREAM_RESET
        result = await scene.result()
    assert (result.ended, result.code) == ("other", ErrorCode.STREAM_RESET)
    assert isinstance(result.error, ConnectionResetError)
    assert not result.reset_lost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half_closed", ["neither", "user", "peer"])
async def test_a_reset_stream_resets_the_connection(kind: str, half_closed: str) -> None:
    async with relayed(kind) as scene:
        await scene.peer.write(b"half an answer")
        assert await scene.user.receive_exactly(14) == b"half an answer"
        if half_closed == "user":
            scene.user.end()
            assert await scene.peer.read() == b""
        elif half_closed == "peer":
            scene.peer.write_eof()
            assert await scene.user.receive() == b""
        scene.peer.reset(77)
        result = await scene.result()
        if kind == "tcp":
            with pytest.raises(ConnectionError):  # by the end before it, a broken pipe
                await scene.user.send(b"x")
        else:
            assert await scene.user.receive() == b""  # it can't be told
    assert (result.ended, result.code) == ("stream", 77)
    assert isinstance(result.error, muxado.StreamReset)
    assert result.reset_lost == (kind == "unix")


async def test_the_end_of_the_session_resets_the_connection() -> None:
    async with relayed() as scene:
        scene.far.abort(5)
        assert await refused(scene.user) == b""
        result = await scene.result()
    assert (result.ended, result.code) == ("stream", None)
    assert isinstance(result.error, muxado.SessionAborted)


async def test_a_reset_finds_a_user_that_reads_nothing() -> None:
    """The relay reads nothing from the stream then, and must hear of the reset all the same."""
    async with relayed() as scene:
        writing = asyncio.create_task(write_all(scene.peer, bytes(4 * MIB)))
        await until_stalled(scene)
        scene.peer.reset(77)
        with suppress(muxado.StreamReset):
            await writing
        result = await scene.result()
        assert len(await refused(scene.user)) < MOST_UNDER_WAY
    assert (result.ended, result.code) == ("stream", 77)


async def test_a_whole_answer_arrives_though_its_peer_reads_no_more() -> None:
    """A server may answer, and close, before it has read the whole request."""
    async with relayed() as scene:
        await scene.user.send(bytes(WINDOW // 2))
        await scene.peer.readexactly(1)
        await scene.peer.write(bytes(WINDOW // 2))
        scene.peer.close()  # with bytes unread: FIN, and a RST behind it
        await scene.user.send(bytes(100))
        await asyncio.sleep(0)
        await scene.user.send(bytes(100))
        assert await scene.user.receive_all() == bytes(WINDOW // 2)
        scene.user.end()
        result = await scene.result()
    assert (result.ended, result.code) == ("stream", ErrorCode.STREAM_CLOSED)
    assert not result.reset_lost


async def test_a_whole_answer_arrives_at_a_slow_user_that_goes_on_asking() -> None:
    async with relayed() as scene:
        await scene.user.send(bytes(1000))
        await scene.peer.readexactly(1)
        written = 0
        while scene.relay.from_stream == written:  # until the connection takes no more
            await scene.peer.write(bytes(4 * KIB))
            written += 4 * KIB
            await scene.far.ping()
        scene.peer.close()  # with bytes unread: FIN, and a RST behind it
        await scene.far.ping()
        await scene.user.send(b"x")
        await until_stalled(scene)
        assert scene.relay.from_stream < written
        assert await scene.user.receive_all() == bytes(written)
        scene.user.end()
        result = await scene.result()
    assert (result.ended, result.code) == ("stream", ErrorCode.STREAM_CLOSED)


@pytest.mark.parametrize("cut_by", ["user", "peer"])
async def test_what_is_cut_at_any_byte_never_looks_whole(cut_by: str) -> None:
    message = bytes(range(1, 13))
    for length in range(len(message) + 1):
        async with relayed() as scene:
            if cut_by == "peer":
                await scene.peer.write(message[:length])
                await scene.near.ping()  # else the reset would overtake it
                scene.peer.reset()
                assert message.startswith(await refused(scene.user))
            else:
                await scene.user.send(message[:length])
                assert await scene.peer.readexactly(length) == message[:length]
                scene.user.reset()
                with pytest.raises(muxado.StreamReset):
                    await scene.peer.read()


async def test_a_wire_without_resets_loses_one() -> None:
    async with relayed(config=muxado.Config(wire="smux-v2")) as scene:
        await scene.user.send(b"half")
        assert await scene.peer.readexactly(4) == b"half"
        scene.user.reset()
        assert await scene.peer.read() == b""  # it can't be told
        result = await scene.result()
    assert (result.ended, result.reset_lost) == ("other", True)


# Back-pressure


async def write_all(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), 32 * KIB):
        await stream.write(data[start : start + 32 * KIB])
    stream.write_eof()


async def until_stalled(scene: Scene) -> None:
    """Wait until nothing moves in the relay any more."""
    seen = (-1, -1)
    calm = 0
    while calm < 5:
        await scene.near.ping()
        now = (scene.relay.to_stream, scene.relay.from_stream)
        calm = calm + 1 if now == seen and max(now) else 0
        seen = now


async def test_a_user_that_stops_reading_loses_nothing_and_stops_the_peer() -> None:
    data = random.Random(1).randbytes(4 * MIB)
    async with relayed() as scene:
        writing = asyncio.create_task(write_all(scene.peer, data))
        await until_stalled(scene)
        assert scene.relay.from_stream < MOST_UNDER_WAY
        assert scene.near.stats().memory_held <= WINDOW
        assert await scene.user.receive_all() == data
        await writing
        scene.user.end()
        assert (await scene.result()).ended == "end"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_stops_reading_loses_nothing_and_stops_the_user(kind: str) -> None:
    data = random.Random(2).randbytes(4 * MIB)
    async with relayed(kind) as scene:
        sending = asyncio.create_task(scene.user.send(data))
        await until_stalled(scene)
        assert scene.relay.to_stream < MOST_UNDER_WAY
        assert scene.near.stats().bytes_queued < WINDOW + 256 * KIB
        assert await scene.peer.readexactly(len(data)) == data
        await sending
        scene.user.end()
        scene.peer.write_eof()
        assert await scene.peer.read() == b""
        assert (await scene.result()).ended == "end"


async def test_one_that_reads_nothing_does_not_hold_up_another() -> None:
    async with relayed() as scene:
        writing = asyncio.create_task(write_all(scene.peer, bytes(4 * MIB)))
        await until_stalled(scene)
        async with scene.near.open(eager=True) as other, await scene.far.accept() as there:
            await there.write(b"past it")
            there.write_eof()
            assert await other.read() == b"past it"
        writing.cancel()


async def test_what_came_before_the_connection_is_passed_on_first() -> None:
    async with relayed(early=b"before ") as scene:
        await scene.peer.write(b"after")
        scene.peer.write_eof()
        assert await scene.user.receive_all() == b"before after"


async def test_what_comes_with_the_connection_is_passed_on() -> None:
    """uvloop reads it, though the transport is paused in `connection_made`."""
    async with asyncio_pair(muxado.Config(write_high_water=1)) as (near, far):
        stream = near.open()
        await stream.write(b"the stream takes no more now, ")
        near_socket, user_socket = socket.socketpair()
        user = User(user_socket)
        await user.send(b"and then it does")
        user.end()
        loop = asyncio.get_running_loop()
        _, relay = await loop.create_connection(lambda: Relay(stream), sock=near_socket)
        async with await far.accept() as peer:
            assert await peer.read() == b"the stream takes no more now, and then it does"
            peer.write_eof()
            assert (await relay.wait_closed()).ended == "end"
        user.sock.close()


# Timeouts, cancellation


async def test_a_silent_relay_is_cut_by_its_idle_timeout() -> None:
    async with relayed(idle_timeout=0.05) as scene:
        await scene.user.send(b"x")
        assert await scene.peer.read(1) == b"x"
        with pytest.raises(muxado.StreamReset) as caught:
            await scene.peer.read()
        assert caught.value.code == ErrorCode.STREAM_CANCELLED
        assert await refused(scene.user) == b""
        assert (await scene.result()).ended == "idle"


@pytest.mark.parametrize("first", ["user", "peer"])
async def test_a_half_closed_relay_is_cut_by_its_timeout(first: str) -> None:
    async with relayed(half_closed_timeout=0.05) as scene:
        await scene.user.send(b"x")
        assert await scene.peer.read(1) == b"x"
        if first == "user":
            scene.user.end()
        else:
            scene.peer.write_eof()
        result = await scene.result()
    assert (result.ended, result.code) == ("half_closed", ErrorCode.STREAM_CANCELLED)


async def test_what_is_not_half_closed_has_no_such_timeout() -> None:
    async with relayed(half_closed_timeout=0.01) as scene:
        await asyncio.sleep(0.05)  # the timeout's time, several times
        await scene.user.send(b"x")
        assert await scene.peer.read(1) == b"x"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_timeout_is_above_0(timeout: float) -> None:
    async with asyncio_pair() as (near, _):
        stream = near.open()
        with pytest.raises(muxado.UsageError, match="above 0"):
            Relay(stream, idle_timeout=timeout)
        with pytest.raises(muxado.UsageError, match="above 0"):
            Relay(stream, half_closed_timeout=timeout)
        stream.close()


async def test_cancel_resets_both() -> None:
    async with relayed() as scene:
        scene.relay.cancel()
        assert await refused(scene.user) == b""
        with pytest.raises(muxado.StreamReset) as caught:
            await scene.peer.read()
        assert caught.value.code == ErrorCode.STREAM_CANCELLED
        result = await scene.result()
        assert (result.ended, result.code) == ("cancelled", ErrorCode.STREAM_CANCELLED)
        scene.relay.cancel()
        assert await scene.result() == result


async def test_a_relay_without_a_connection_can_be_cancelled() -> None:
    async with asyncio_pair() as (near, far):
        relay = Relay(near.open(eager=True))
        async with await far.accept() as peer:
            relay.cancel()
            assert (await relay.wait_closed()).ended == "cancelled"
            assert await peer.wait_reset() == ErrorCode.STREAM_CANCELLED


# Many, and what one costs


class Tunnel:
    """A listener here whose connections lead, over streams, to an echo server there."""

    def __init__(self, near: muxado.Session, far: muxado.Session) -> None:
        self.near = near
        self.far = far
        self.tasks: set[asyncio.Task[object]] = set()
        self.relays: list[Relay] = []

    def relay(self, stream: Stream) -> Relay:
        self.relays.append(Relay(stream))
        return self.relays[-1]

    async def start(self) -> int:
        """Return the port to connect to."""
        loop = asyncio.get_running_loop()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await reader.read(64 * KIB):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        self.target = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=2000)
        target = self.target.sockets[0].getsockname()[1]

        def dial(stream: Stream) -> None:
            work = loop.create_connection(lambda: self.relay(stream), "127.0.0.1", target)
            task: asyncio.Task[object] = loop.create_task(work)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        self.far.on_stream(dial)
        self.server = await loop.create_server(
            lambda: self.relay(self.near.open()), "127.0.0.1", 0, backlog=2000
        )
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self.server.close()
        for relay in self.relays:
            relay.cancel()
            await relay.wait_closed()
        self.target.close()


async def test_a_thousand_at_once() -> None:
    async with asyncio_pair() as (near, far):
        tunnel = Tunnel(near, far)
        port = await tunnel.start()
        everyone = asyncio.Barrier(1000)
        source = random.Random(3)

        async def use(data: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await everyone.wait()
            writer.write(data)
            writer.write_eof()
            digest = hashlib.sha256(await reader.read()).digest()
            assert digest == hashlib.sha256(data).digest()
            writer.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(use(source.randbytes(source.randrange(1, 8 * KIB))))
        results = [await relay.wait_closed() for relay in tunnel.relays]
        assert len(results) == 2000
        assert {result.ended for result in results} == {"end"}
        await tunnel.stop()


def waiting() -> int:
    """Return how many tasks and futures there are."""
    gc.collect()
    return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())


async def test_a_relayed_connection_has_no_task_and_no_future() -> None:
    async with asyncio_pair() as (near, far):
        loop = asyncio.get_running_loop()
        stream_server = await loop.create_server(
            lambda: Relay(near.open()), "127.0.0.1", 0, backlog=300
        )
        place = stream_server.sockets[0].getsockname()
        far.on_stream(lambda stream: kept.append(stream))
        kept: list[Stream] = []
        users = [User(socket.socket()) for _ in range(201)]

        async def use(user: User) -> None:
            await loop.sock_connect(user.sock, place)
            await user.send(b"hello")
            while not (kept and kept[-1].read_nowait(5)):
                await far.ping()
            assert kept[-1].write_nowait(b"hello")
            assert await user.receive_exactly(5) == b"hello"

        await use(users[0])
        before = waiting()
        for user in users[1:]:
            await use(user)
        assert len(kept) == 201
        assert waiting() == before
        for user in users:
            user.reset()
        for stream in kept:
            assert await stream.wait_reset() == ErrorCode.STREAM_RESET
            stream.close()
        stream_server.close()
