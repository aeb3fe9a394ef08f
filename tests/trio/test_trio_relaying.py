"""`muxado.trio.relay`: ends, resets, back-pressure, by TCP, TLS, Unix sockets, streams."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any

import pytest
import trio
import trio.testing

import muxado
from muxado import Config, ErrorCode, RelayResult
from muxado.testing import trio_pair
from muxado.trio import Session, Stream, relay

from ..certificates import Tls

KIB = 1024
MIB = 1024 * KIB
WINDOW = 64 * KIB
KERNEL_BUFFER = 32 * KIB
KINDS = ["tcp", "unix", "tls"]
SMALL = Config(initial_window=WINDOW, max_window=WINDOW, write_high_water=WINDOW)

# Bytes that may be under way: a stream's two windows and queues, two pieces, what the sockets hold.
MOST_UNDER_WAY = 4 * WINDOW + 2 * 256 * KIB + 64 * KIB + 512 * KIB


@dataclass
class Scene:
    """A relay in a task of its own, a program at its socket, and the stream's other end."""

    user: trio.abc.Stream
    sock: trio.socket.SocketType
    peer: Stream
    near: Session
    far: Session
    scope: trio.CancelScope
    over: trio.Event = field(default_factory=trio.Event)
    outcome: RelayResult | None = None

    async def result(self) -> RelayResult:
        await self.over.wait()
        assert self.outcome is not None
        return self.outcome

    async def receive_all(self) -> bytes:
        return b"".join([piece async for piece in self.user])

    async def receive_until_reset(self) -> bytes:
        data = b""
        try:
            while piece := await self.user.receive_some():
                data += piece
        except trio.BrokenResourceError:
            return data
        raise AssertionError(f"a clean end after {len(data)} bytes")

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def exactly(stream: trio.abc.ReceiveStream, n: int) -> bytes:
    data = b""
    while len(data) < n:
        piece = await stream.receive_some(n - len(data))
        assert piece, "the end came too early"
        data += piece
    return data


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([piece async for piece in stream])


def reset_code(caught: pytest.ExceptionInfo[trio.BrokenResourceError]) -> int:
    cause = caught.value.__cause__
    assert isinstance(cause, muxado.StreamReset)
    return cause.code


async def connected(kind: str) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return the relay's end of a connection, and the user's."""
    if kind == "unix":
        inside, user = (trio.SocketStream(sock) for sock in trio.socket.socketpair())
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
            user = trio.SocketStream(trio.socket.socket())
            user.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
            await user.socket.connect(listening.getsockname())
            inside = trio.SocketStream(trio.socket.from_stdlib_socket(listening.accept()[0]))
    for stream in (inside, user):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    return inside, user


@asynccontextmanager
async def relayed(
    kind: str = "tcp", tls: Tls | None = None, config: Config = SMALL, **options: Any
) -> AsyncIterator[Scene]:
    async with trio_pair(config) as (near, far), trio.open_nursery() as nursery:
        stream = near.open(eager=True)
        peer = await far.accept()
        inside, outside = await connected(kind)
        other: trio.abc.Stream = inside
        user: trio.abc.Stream = outside
        if kind == "tls":
            assert tls is not None
            other = trio.SSLStream(inside, tls.server, server_side=True)
            user = trio.SSLStream(outside, tls.client, server_hostname="localhost")
            nursery.start_soon(other.do_handshake)
            await user.do_handshake()
        scene = Scene(user, outside.socket, peer, near, far, trio.CancelScope())

        async def run() -> None:
            with scene.scope:
                scene.outcome = await relay(stream, other, **options)
            scene.over.set()

        nursery.start_soon(run)
        try:
            yield scene
        finally:
            scene.scope.cancel()
            outside.socket.close()
            with trio.CancelScope(shield=True):
                await scene.over.wait()
            (peer.reset if peer.tells_resets else peer.close)()
            near.abort()
            far.abort()


async def end(scene: Scene) -> None:
    """Say the user's end."""
    if isinstance(scene.user, trio.SSLStream):
        await scene.user.aclose()
    else:
        assert isinstance(scene.user, trio.SocketStream)
        await scene.user.send_eof()


async def send_pieces(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), 32 * KIB):
        await stream.send_all(data[start : start + 32 * KIB])
    await stream.send_eof()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_user_that_has_said_its_end_gets_the_whole_reply(kind: str, tls: Tls) -> None:
    before = time()
    async with relayed(kind, tls) as scene, trio.open_nursery() as nursery:
        await scene.user.send_all(b"question")
        if kind != "tls":
            await end(scene)
            assert await all_of(scene.peer) == b"question"
        else:
            assert await exactly(scene.peer, 8) == b"question"
        nursery.start_soon(send_pieces, scene.peer, bytes(MIB))
        assert await exactly(scene.user, MIB) == bytes(MIB)
        if kind == "tls":
            await end(scene)
            assert await all_of(scene.peer) == b""
        else:
            assert await scene.user.receive_some() == b""
        result = await scene.result()
    assert (result.ended, result.to_stream, result.from_stream) == ("end", 8, MIB)
    assert (result.code, result.error, result.reset_lost) == (None, None, False)
    assert result.last_byte_at is not None
    assert before - 1 <= result.started_at <= result.last_byte_at <= time() + 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_peer_that_has_said_its_end_gets_the_whole_reply(kind: str) -> None:
    async with relayed(kind) as scene, trio.open_nursery() as nursery:
        await scene.peer.send_all(b"question")
        await scene.peer.send_eof()
        assert await scene.receive_all() == b"question"
        nursery.start_soon(scene.user.send_all, bytes(MIB))
        assert await exactly(scene.peer, MIB) == bytes(MIB)
        await end(scene)
        assert await all_of(scene.peer) == b""
        result = await scene.result()
    assert (result.ended, result.to_stream, result.from_stream) == ("end", MIB, 8)


# Resets


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_reset_connection_resets_the_stream(kind: str, half_closed: bool, tls: Tls) -> None:
    async with relayed(kind, tls) as scene:
        await scene.user.send_all(b"x")
        assert await exactly(scene.peer, 1) == b"x"
        if half_closed:
            await scene.peer.send_eof()
            if kind == "tcp":
                assert await scene.user.receive_some() == b""
        scene.reset()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await all_of(scene.peer)
        assert reset_code(caught) == ErrorCode.STREAM_RESET
        result = await scene.result()
    assert (result.ended, result.code) == ("other", ErrorCode.STREAM_RESET)
    assert isinstance(result.error, OSError)
    assert not result.reset_lost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half_closed", ["neither", "user", "peer"])
async def test_a_reset_stream_resets_the_connection(kind: str, half_closed: str, tls: Tls) -> None:
    async with relayed(kind, tls) as scene:
        await scene.peer.send_all(b"half an answer")
        assert await exactly(scene.user, 14) == b"half an answer"
        if half_closed == "user" and kind != "tls":
            await end(scene)
            assert await all_of(scene.peer) == b""
        elif half_closed == "peer":
            await scene.peer.send_eof()
            if kind != "tls":
                assert await scene.user.receive_some() == b""
        scene.peer.reset(77)
        result = await scene.result()
        if kind == "unix":
            assert await scene.user.receive_some() == b""  # it can't be told
        else:
            with pytest.raises((OSError, trio.BrokenResourceError)):
                await scene.sock.send(b"x")
    assert (result.ended, result.code) == ("stream", 77)
    assert isinstance(result.error, muxado.StreamReset)
    assert result.reset_lost == (kind == "unix")


async def test_the_end_of_the_session_resets_the_connection() -> None:
    async with relayed() as scene:
        scene.far.abort(5)
        assert await scene.receive_until_reset() == b""
        result = await scene.result()
    assert (result.ended, result.code) == ("stream", None)
    assert isinstance(result.error, muxado.SessionAborted)


async def test_tls_that_is_cut_without_its_end_resets_the_stream(tls: Tls) -> None:
    async with relayed("tls", tls) as scene:
        await scene.user.send_all(b"half")
        assert await exactly(scene.peer, 4) == b"half"
        scene.sock.close()  # no close_notify
        with pytest.raises(trio.BrokenResourceError):
            await all_of(scene.peer)
        result = await scene.result()
    assert result.ended == "other"
    assert isinstance(result.error, ssl.SSLError)


async def test_a_wire_without_resets_loses_one() -> None:
    async with relayed(config=Config(wire="smux-v2")) as scene:
        await scene.user.send_all(b"half")
        assert await exactly(scene.peer, 4) == b"half"
        scene.reset()
        assert await all_of(scene.peer) == b""  # it can't be told
        result = await scene.result()
    assert (result.ended, result.reset_lost) == ("other", True)


async def test_what_is_cut_at_any_byte_never_looks_whole() -> None:
    message = bytes(range(1, 13))
    for length in range(len(message) + 1):
        async with relayed() as scene:
            await scene.peer.send_all(message[:length])
            await scene.far.ping()  # else the reset would overtake it
            scene.peer.reset()
            assert message.startswith(await scene.receive_until_reset())
        async with relayed() as scene:
            await scene.user.send_all(message[:length])
            assert await exactly(scene.peer, length) == message[:length]
            scene.reset()
            with pytest.raises(trio.BrokenResourceError):
                await all_of(scene.peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_answer_arrives_though_its_peer_reads_no_more(kind: str, tls: Tls) -> None:
    """A server may answer, and close, before it has read the whole request."""
    async with relayed(kind, tls) as scene:
        await scene.user.send_all(bytes(WINDOW // 2))
        assert await exactly(scene.peer, 1)
        await scene.peer.send_all(bytes(WINDOW // 2))
        scene.peer.close()  # with bytes unread: FIN, and a RST behind it
        assert await scene.receive_all() == bytes(WINDOW // 2)
        if kind != "tls":
            await scene.user.send_all(bytes(100))
            await end(scene)
        result = await scene.result()
    assert (result.ended, result.code) == ("stream", ErrorCode.STREAM_CLOSED)
    assert not result.reset_lost


# Back-pressure


async def until_stalled(scene: Scene) -> int:
    """Wait until nothing moves in the relay any more; return the bytes that it has moved."""
    seen, calm = -1, 0
    while calm < 20:
        await scene.near.ping()
        (snapshot,) = scene.near.streams()
        now = snapshot.bytes_received + snapshot.bytes_sent
        calm = calm + 1 if now == seen and now else 0
        seen = now
    return seen


async def test_a_user_that_stops_reading_loses_nothing_and_stops_the_peer() -> None:
    data = random.Random(1).randbytes(4 * MIB)
    async with relayed() as scene, trio.open_nursery() as nursery:
        nursery.start_soon(send_pieces, scene.peer, data)
        assert await until_stalled(scene) < MOST_UNDER_WAY
        assert await scene.receive_all() == data
        await end(scene)
        assert (await scene.result()).ended == "end"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_stops_reading_loses_nothing_and_stops_the_user(
    kind: str, tls: Tls
) -> None:
    data = random.Random(2).randbytes(4 * MIB)
    async with relayed(kind, tls) as scene, trio.open_nursery() as nursery:
        nursery.start_soon(scene.user.send_all, data)
        assert await until_stalled(scene) < MOST_UNDER_WAY
        assert await exactly(scene.peer, len(data)) == data


async def test_a_reset_finds_a_user_that_reads_nothing() -> None:
    async with relayed() as scene, trio.open_nursery() as nursery:

        async def write() -> None:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                await send_pieces(scene.peer, bytes(4 * MIB))

        nursery.start_soon(write)
        await until_stalled(scene)
        scene.peer.reset(77)
        result = await scene.result()
        assert len(await scene.receive_until_reset()) < MOST_UNDER_WAY
    assert (result.ended, result.code) == ("stream", 77)


# Timeouts, cancellation


async def test_a_silent_relay_is_cut_by_its_idle_timeout() -> None:
    async with relayed(idle_timeout=0.05) as scene:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await all_of(scene.peer)
        assert reset_code(caught) == ErrorCode.STREAM_CANCELLED
        assert await scene.receive_until_reset() == b""
        assert (await scene.result()).ended == "idle"


@pytest.mark.parametrize("first", ["user", "peer"])
async def test_a_half_closed_relay_is_cut_by_its_timeout(first: str) -> None:
    async with relayed(half_closed_timeout=0.05) as scene:
        await scene.user.send_all(b"x")
        assert await exactly(scene.peer, 1) == b"x"
        if first == "user":
            await end(scene)
        else:
            await scene.peer.send_eof()
        result = await scene.result()
    assert (result.ended, result.code) == ("half_closed", ErrorCode.STREAM_CANCELLED)


async def test_a_cancelled_relay_resets_both() -> None:
    async with relayed() as scene:
        await scene.user.send_all(b"x")
        assert await exactly(scene.peer, 1) == b"x"
        scene.scope.cancel()
        await scene.over.wait()
        assert scene.outcome is None
        with pytest.raises(trio.BrokenResourceError) as caught:
            await all_of(scene.peer)
        assert reset_code(caught) == ErrorCode.STREAM_CANCELLED
        assert await scene.receive_until_reset() == b""


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_timeout_is_above_0(timeout: float) -> None:
    async with trio_pair() as (near, _), near.open() as stream, near.open() as other:
        with pytest.raises(muxado.UsageError, match="above 0"):
            await relay(stream, other, idle_timeout=timeout)


# Between other things, and many


@asynccontextmanager
async def two_streams(results: list[RelayResult]) -> AsyncIterator[tuple[Stream, Stream]]:
    async with trio_pair() as (near, far), trio.open_nursery() as nursery:
        streams = near.open(eager=True), near.open(eager=True)
        peers = await far.accept(), await far.accept()

        async def run() -> None:
            results.append(await relay(*streams))

        nursery.start_soon(run)
        yield peers
        for peer in peers:
            (peer.reset if peer.tells_resets else peer.close)()


async def test_two_streams_are_passed_on_with_their_ends() -> None:
    results: list[RelayResult] = []
    async with two_streams(results) as (one, two):
        await one.send_all(b"question")
        await one.send_eof()
        assert await all_of(two) == b"question"
        await two.send_all(b"answer")
        await two.send_eof()
        assert await all_of(one) == b"answer"
        while not results:
            await one.session.ping()
    assert [(result.ended, result.to_stream) for result in results] == [("end", 6)]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_reset_goes_from_stream_to_stream_with_its_code(
    first: bool, half_closed: bool
) -> None:
    results: list[RelayResult] = []
    async with two_streams(results) as peers:
        source, target = peers if first else reversed(peers)
        await source.send_all(b"half")
        assert await exactly(target, 4) == b"half"
        if half_closed:
            await source.send_eof()
            assert await target.receive_some() == b""
        source.reset(77)
        assert await target.wait_reset() == 77
        while not results:
            await target.session.ping()
    assert [(result.ended, result.code) for result in results] == [
        ("stream" if first else "other", 77)
    ]


async def test_two_pipes_are_ended_and_lose_a_reset() -> None:
    async with trio_pair() as (near, far):
        stream = near.open(eager=True)
        peer = await far.accept()
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"all")
        outcome: list[RelayResult] = []
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                outcome.append(await relay(stream, ours))

            nursery.start_soon(run)
            assert await exactly(peer, 3) == b"all"
            peer.reset(77)
        assert [(result.code, result.reset_lost) for result in outcome] == [(77, True)]


async def test_many_at_once() -> None:
    count = 200
    source = random.Random(3)
    started = 0
    everyone = trio.Event()
    async with trio_pair() as (near, far), trio.open_nursery() as nursery:

        async def echo(stream: Stream) -> None:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()

        async def use(data: bytes) -> None:
            nonlocal started
            inside, user = await connected("tcp")
            async with trio.open_nursery() as own:
                own.start_soon(end_of, inside)
                started += 1
                if started == count:
                    everyone.set()
                await everyone.wait()
                await user.send_all(data)
                await user.send_eof()
                answer = await all_of(user)
                assert hashlib.sha256(answer).digest() == hashlib.sha256(data).digest()
            await user.aclose()

        async def end_of(inside: trio.SocketStream) -> None:
            result = await relay(near.open(), inside)
            assert result.ended == "end"

        nursery.start_soon(far.serve, echo)
        async with trio.open_nursery() as users:
            for _ in range(count):
                users.start_soon(use, source.randbytes(source.randrange(1, 8 * KIB)))
        near.close()


async def test_a_relay_has_one_task_besides_its_own() -> None:
    async with relayed() as scene:
        await scene.user.send_all(b"x")
        assert await exactly(scene.peer, 1) == b"x"
        with_relay = trio.lowlevel.current_statistics().tasks_living
        scene.scope.cancel()
        await scene.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == with_relay - 2
