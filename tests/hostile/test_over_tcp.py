"""Hostile peers on real connections: only their own session pays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

import pytest

import muxado
from muxado import ErrorCode
from muxado.wire.codec import GO_AWAY

from ..certificates import Tls
from ..core.peer import PING, data, header, rst, wndinc
from ..fixtures import anyio_backend
from ..frames import read_frames
from ..golden import vectors
from .scene import CONFIG, MIB, PATIENCE, TASK, Hostile, Scene, connected, hostile, serving

__all__ = ["anyio_backend"]  # pytest looks for it here

pytestmark = pytest.mark.anyio

Burst = Callable[[int], bytes]


def ids(number: int) -> range:
    return range(3 + 2000 * number, 3 + 2000 * (number + 1), 2)


def on_one_stream(frame: bytes) -> Burst:
    """Return the bursts that say the same again and again about a stream that is open."""
    return lambda number: (b"" if number else data(3, syn=True)) + frame * 1000


class Flood(NamedTuple):
    """What a peer sends again and again.

    Attributes:
        burst: the n-th portion.
        reading: the code it gets in the end if it reads; None: the session goes on.
        unread: the same if it doesn't read.
        held: bytes that the server may hold besides what it may for any peer.
    """

    burst: Burst
    reading: ErrorCode | None
    unread: ErrorCode | None
    held: int = 0


CALM = ErrorCode.ENHANCE_YOUR_CALM
FLOODS = {
    "SYN": Flood(
        lambda n: b"".join(data(i, syn=True) for i in ids(n)),
        None,
        CALM,
        held=CONFIG.max_incoming_streams * TASK,
    ),
    "SYN and FIN": Flood(
        lambda n: b"".join(data(i, b"x", syn=True, fin=True) for i in ids(n)[:300]), None, CALM
    ),
    "open and reset": Flood(
        lambda n: b"".join(data(i, syn=True) + rst(i, 6) for i in ids(n)), CALM, CALM
    ),
    "unknown streams": Flood(lambda n: b"".join(data(i, b"x") for i in ids(n)), None, CALM),
    "pings": Flood(lambda n: PING * 1000, None, None),
    "tiny DATA": Flood(on_one_stream(data(3, b"x")), None, None),
    "RST": Flood(lambda n: b"".join(rst(i, 9) for i in ids(n)), None, None),
    "WNDINC": Flood(on_one_stream(wndinc(3, 1)), None, None),
    "unknown frames": Flood(lambda n: (header(9, 9, 9, 0) + bytes(9)) * 1000, None, None),
}
BURSTS = 10
# So many that a peer that reads nothing is given up, or is not going to be.
UNREAD_BURSTS = 100
# The first of the streams that tell how far the server has got.
MARK = 1_000_001


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_whose_answers_are_read(name: str, security: Tls | None) -> None:
    flood = FLOODS[name]
    async with serving(security) as scene, hostile(scene) as peer:
        for number in range(BURSTS):
            # Its answer says that all before it was taken, and so does the server's end.
            if not await peer.send(flood.burst(number) + data(MARK + 2 * number)):
                break
            if number % 5 == 0:
                await scene.check_friend()
            try:
                await peer.read_to(rst(MARK + 2 * number, 4))
            except ConnectionError:
                break
        await scene.check_friend()
        goaways = [frame.code for frame in read_frames([bytes(peer.got)]) if frame.kind == GO_AWAY]
        if flood.reading is None:
            assert scene.ended.empty()
            assert goaways == []
        else:
            await scene.check_ended(flood.reading)
            assert goaways == [flood.reading]


# Without the one that mostly keeps the server's application busy.
@pytest.mark.parametrize("name", [name for name in FLOODS if name != "SYN and FIN"])
async def test_a_flood_whose_answers_are_not_read(name: str, security: Tls | None) -> None:
    flood = FLOODS[name]
    async with serving(security) as scene, hostile(scene) as peer:
        await stop_reading(scene, peer)
        with scene.bounded(flood.held) as check_memory:
            for number in range(UNREAD_BURSTS):
                if number % 10 == 0:
                    await scene.check_friend()
                    check_memory()
                if not await peer.send(flood.burst(number)):
                    break
            await scene.check_friend()
            check_memory()
        if flood.unread is not None:
            await scene.check_ended(flood.unread)
            return
        # All of it was taken, although nothing was read, and the peer may go on.
        accepted = peer.session.stats().streams_accepted
        assert await peer.send(data(MARK, b"x", syn=True))
        await scene.until(lambda: peer.session.stats().streams_accepted > accepted)
        assert scene.ended.empty()
        assert peer.session.stats().bytes_queued > 0
        await peer.read_to(data(MARK, b"x"))


async def stop_reading(scene: Scene, peer: Hostile) -> None:
    """Read nothing, and have the server write until neither kernel nor transport takes more."""
    stream_id = 2_000_001
    while peer.session.stats().bytes_queued < MIB:
        await peer.send(data(stream_id, bytes(200_000), syn=True))
        await scene.check_friend()
        stream_id += 2
        assert stream_id < 2_000_101, "whatever the server writes is taken"


FOREIGN = [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "HTTP"),
    (bytes.fromhex("16030110000100") + bytes(500), "TLS"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
    (bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(12), "PROXY"),
    (bytes.fromhex("000200010000000000000001"), "yamux"),
    (bytes.fromhex("0100000003000000") + bytes(200), "smux"),
    (
        next(v.wire for v in vectors("muxado-v1") if v.by_go and v.name.startswith("syn-")),
        "muxado v1",
    ),
]


@pytest.mark.parametrize(("wire", "name"), FOREIGN)
async def test_another_protocol_is_named_and_cut_off(
    wire: bytes, name: str, security: Tls | None
) -> None:
    async with serving(security) as scene, hostile(scene) as peer:
        await peer.send(wire)
        assert name in str(await scene.end())
        await peer.read_to_end()
        assert peer.got == b""
        await scene.check_friend()


async def test_silent_connections_keep_no_client_out(security: Tls | None) -> None:
    async with serving(security) as scene, contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(connected(scene))
        await scene.check_friend()
        host, port = scene.server.addresses[0]
        async with (
            asyncio.timeout(PATIENCE),
            await muxado.connect(host, port, ssl=scene.client_context) as other,
        ):
            assert await other.ping() >= 0


async def test_a_burst_that_draws_very_many_answers_is_answered_in_full(
    security: Tls | None,
) -> None:
    """A peer that reads, if only after it has written, is no hostile one."""
    async with serving(security) as scene, hostile(scene) as peer:
        count = 30_000
        await peer.send(b"".join(data(i) for i in range(2, 2 + 2 * count, 2)))
        async with asyncio.timeout(PATIENCE):
            while len(peer.got) < count * 12:
                assert await peer.take()
        assert peer.got.replace(PING, b"") == b"".join(
            rst(i, 4) for i in range(2, 2 + 2 * count, 2)
        )
        await scene.check_friend()
        assert scene.ended.empty()
