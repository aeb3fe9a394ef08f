"""Peers that hardly read, never answer, or stop in the middle, on real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from time import monotonic
from typing import Any

import pytest

from muxado import Config, ErrorCode, PeerTimeout, SessionClosed, SessionError, Stream
from muxado.wire.codec import CREDIT, DATA
from tests.inside import FLOOR
from tests.patience import patience

from ..certificates import Tls
from ..core.peer import WINDOW, data, wndinc
from ..fixtures import anyio_backend
from ..frames import FrameReader
from ..helpers import running
from .scene import MIB, TASK, Hostile, Scene, hostile, serving

__all__ = ["anyio_backend"]  # pytest looks for it here

pytestmark = pytest.mark.anyio

# What a second is for the peers, in seconds.
SECOND = 0.01
# Seconds that a bounded wait may take longer on a busy machine.
SLACK = patience(5)
PIECE = 64 * 1024
STREAMS = range(3, 103, 2)
# What may be queued on these streams, and held: a write that waits, and a task, for each.
QUEUED = len(STREAMS) * (Config().write_high_water + PIECE)
HELD = QUEUED + len(STREAMS) * (PIECE + TASK)
# A peer is given up after these, so that tests which last longer see that it isn't.
HASTY = Config(ping_interval=0.1, ping_timeout=0.15, close_timeout=0.3)
GIVEN_UP = 0.25
LONG = 0.5


async def pour(stream: Stream) -> None:
    """Write a mebibyte."""
    for _ in range(MIB // PIECE):
        await stream.write(bytes(PIECE))


async def drop(stream: Stream) -> None:
    """Read to the end."""
    while await stream.read(PIECE):
        pass


async def read_slowly(peer: Hostile) -> None:
    """Read a byte a second."""
    with contextlib.suppress(ConnectionError):
        while await peer.take(1):  # noqa: ASYNC110 - no event: the rate is the point
            await asyncio.sleep(SECOND)


async def check_end(scene: Scene, peer: Hostile, how: str) -> None:
    """End the server's session with a peer that hardly reads, within the limits of its end."""
    session = peer.session
    limit = session.config.close_timeout
    started = monotonic()
    if how == "close":
        session.close()
        ending: Coroutine[Any, Any, object] = session.wait_closed()
    else:
        ending = session.shutdown(limit)
    async with asyncio.timeout(limit + SLACK), running(ending) as ended:
        await scene.until(ended.done)
    # All that time it has tried to get rid of what was written.
    assert monotonic() - started > 0.9 * limit
    await scene.end()


@pytest.mark.parametrize("how", ["close", "shutdown"])
async def test_a_byte_a_second_is_read_of_what_50_streams_write(
    security: Tls | None, how: str
) -> None:
    async with serving(security, pour) as scene, hostile(scene) as peer:
        stats = peer.session.stats
        with scene.bounded(HELD) as check_memory:
            async with running(read_slowly(peer)):
                await peer.send(b"".join(data(i, syn=True) + wndinc(i, MIB) for i in STREAMS))
                full = len(STREAMS) * peer.session.config.write_high_water
                await scene.until(lambda: stats().bytes_queued >= full)
                taken = peer.taken
                await scene.until(lambda: peer.taken >= taken + 20)
                check_memory()
                assert stats().bytes_queued <= QUEUED
                assert stats().bytes_sent < MIB
                await check_end(scene, peer, how)
            check_memory()
        assert stats().bytes_queued == 0


async def test_a_flood_by_a_peer_that_reads_a_byte_a_second(security: Tls | None) -> None:
    async with serving(security) as scene, hostile(scene) as peer:
        with scene.bounded() as check_memory:
            async with running(read_slowly(peer)):
                number = 0
                while await peer.send(b"".join(data(number + i) for i in range(2, 2002, 2))):
                    number += 2000
                    await scene.check_friend()
                    check_memory()
                await scene.check_ended(ErrorCode.ENHANCE_YOUR_CALM)
            assert peer.taken > 0
            check_memory()
        await scene.check_friend()


async def test_a_peer_that_talks_and_grants_and_reads_nothing(security: Tls | None) -> None:
    async def pour_forever(stream: Stream) -> None:
        while True:
            await stream.write(bytes(PIECE))

    async with serving(security, pour_forever, HASTY) as scene, hostile(scene) as peer:
        stats = peer.session.stats
        await peer.send(data(3, syn=True) + wndinc(3, 0x7FFFFFFF))
        await scene.until(lambda: stats().bytes_queued >= HASTY.write_high_water)
        with scene.bounded() as check_memory:
            started = monotonic()
            while monotonic() < started + LONG:
                assert await peer.send(wndinc(3, 1))
                await scene.check_friend()
            check_memory()
        assert scene.ended.empty()  # who talks is alive
        assert stats().bytes_queued <= HASTY.write_high_water + PIECE
        await check_end(scene, peer, "close")


async def test_a_peer_that_sends_for_ever_and_answers_no_ping(security: Tls | None) -> None:
    async with serving(security, drop, HASTY) as scene, hostile(scene) as peer:
        session = peer.session
        async with running(session.ping()) as one, running(session.ping()) as other:
            # The round trip is unknown, so no window grows, fast as it is used up.
            await send_on_credit(peer, 8 * MIB)
            assert not one.done()
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
            assert scene.ended.empty()  # who talks is alive
            await scene.check_friend()
            assert not other.done()
            session.close()
            with pytest.raises(SessionClosed):
                await other
        async with asyncio.timeout(HASTY.close_timeout + SLACK):
            await session.wait_closed()


async def send_on_credit(peer: Hostile, least: int) -> None:
    """Send on a stream for long, as much as may be sent, and at least so many bytes."""
    await peer.send(data(3, syn=True))
    reader = FrameReader()
    pings = sent = fed = 0
    credit = WINDOW
    started = monotonic()
    while monotonic() < started + LONG or sent < least:
        size = min(credit, PIECE)
        assert await peer.send(data(3, bytes(size)))
        credit -= size
        sent += size
        while not credit:
            assert await peer.take()
            reader.feed(bytes(peer.got[fed:]))
            fed = len(peer.got)
            credit += sum(frame.value for frame in reader.frames if frame.kind == CREDIT)
            pings += sum(frame.kind == DATA for frame in reader.frames)
            reader.frames.clear()
            assert credit <= FLOOR
    assert pings == 1, "one is under way at a time"


@pytest.mark.parametrize("end", ["silence", "eof"])
@pytest.mark.parametrize("size", [5, 8, 8 + 5], ids=["header", "no body", "body"])
async def test_a_peer_that_stops_in_the_middle_of_a_frame(
    security: Tls | None, size: int, end: str
) -> None:
    read = bytearray()
    failures: list[SessionError] = []

    async def keep(stream: Stream) -> None:
        try:
            while piece := await stream.read(PIECE):
                read.extend(piece)
        except SessionError as error:
            failures.append(error)

    async with serving(security, keep, HASTY) as scene, hostile(scene) as peer:
        started = monotonic()
        await peer.send(data(3, b"whole", syn=True) + data(3, b"first and rest")[:size])
        if end == "eof":
            peer.sock.shutdown(socket.SHUT_WR)
        error = await scene.end()
        assert type(error) is (PeerTimeout if end == "silence" else SessionError)
        assert error.code == ErrorCode.UNKNOWN
        assert error.reason is not None
        assert not error.reason.clean
        if end == "silence":
            assert GIVEN_UP < monotonic() - started < GIVEN_UP + SLACK
        # The reader has had what came, and no clean end.
        assert read == b"whole" + b"first"[: size - 8 if size > 8 else 0]
        assert [type(failure) for failure in failures] == [type(error)]
        await peer.read_to_end()
        await scene.check_friend()
