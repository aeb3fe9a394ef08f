"""Typed sessions, and Go's heartbeat in them."""

from __future__ import annotations

from typing import Any

import pytest

import muxado
from muxado import ErrorCode

from ..fixtures import NewPair
from ..helpers import exchange, opened, running
from ..raw import DATA, FIN, SYN, Frame, packed, raw_peer, reset
from ..transports import TRANSPORTS, Connect, Ends

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

HEARTBEAT = bytes.fromhex("ffffffff")


@pytest.fixture(params=TRANSPORTS[:2])
def transport(request: pytest.FixtureRequest) -> Connect:
    connect: Connect = request.param
    return connect


@pytest.mark.parametrize("kind", [0, 1, 0x01020304, 0xFFFFFFFE])
async def test_the_type_is_seen_on_accept(new_pair: NewPair, kind: int) -> None:
    client, server = await new_pair(typed=True)
    for near, far in ((client, server), (server, client)):
        async with opened(near, far, type=kind) as (stream, other):
            assert stream.type == other.type == kind
            assert f"type={kind:#x}" in repr(other)
            await stream.write(b"no trace of the type")
            stream.write_eof()
            assert await other.read() == b"no trace of the type"


async def test_a_typed_stream_without_a_type_has_type_0(new_pair: NewPair) -> None:
    async with opened(*await new_pair(typed=True)) as (stream, other):
        assert stream.type == other.type == 0


async def test_a_type_is_announced_with_the_first_data(new_pair: NewPair) -> None:
    client, server = await new_pair(typed=True)
    async with (
        client.open(type=7) as stream,
        running(exchange(stream, b"question")) as asking,
        await server.accept() as other,
    ):
        assert other.type == 7
        assert await other.read() == b"question"
        await other.write(b"answer")
        other.write_eof()
        assert await asking == b"answer"


@pytest.mark.parametrize("wrong", [-1, 1 << 32, 0xFFFFFFFF])
async def test_a_type_has_32_bits_and_is_no_heartbeat(new_pair: NewPair, wrong: int) -> None:
    client, _ = await new_pair(typed=True)
    with pytest.raises(muxado.UsageError):
        client.open(type=wrong)
    assert client.stats().streams == 0


async def test_an_untyped_session_has_no_types(session_pair: Ends) -> None:
    client, server = session_pair
    with pytest.raises(muxado.UsageError, match="typed=True"):
        client.open(type=0)
    async with opened(client, server) as (stream, other):
        assert stream.type is None
        assert other.type is None
        await stream.write(HEARTBEAT)
        assert await other.read(100) == HEARTBEAT


async def test_the_type_is_the_first_of_the_data_on_the_wire() -> None:
    async with raw_peer(typed=True) as (session, peer), session.open(type=0x01020304) as stream:
        await stream.write(b"data")
        assert await peer.frame() == Frame(DATA, SYN, 3, b"\1\2\3\4data")


async def test_a_late_type_does_not_delay_other_streams() -> None:
    async with raw_peer(client=False, typed=True) as (session, peer):
        await peer.send(packed(DATA, SYN, 3, b"\0\0"), packed(DATA, SYN, 5, b"\0\0\0\5"))
        async with await session.accept() as second:
            assert (second.id, second.type) == (5, 5)
            await peer.send(packed(DATA, 0, 3, b"\0"), packed(DATA, FIN, 3, b"\3late"))
            async with await session.accept() as first:
                assert (first.id, first.type) == (3, 3)
                assert await first.read() == b"late"


async def test_a_type_that_never_comes_is_a_reset() -> None:
    async with raw_peer(client=False, typed=True, type_timeout=0.05) as (session, peer):
        await peer.send(packed(DATA, SYN, 3, b"\0\0"))
        frame = await peer.frame()
        assert frame == Frame(0, 0, 3, int(ErrorCode.STREAM_CANCELLED).to_bytes(4, "big"))
        assert session.stats().streams == 0


@pytest.mark.parametrize("settings", [{}, {"heartbeat_type": 0x0A0B0C0D}], ids=["Go's", "own"])
async def test_a_heartbeat_is_echoed_without_the_application(settings: dict[str, Any]) -> None:
    kind = settings.get("heartbeat_type", 0xFFFFFFFF).to_bytes(4, "big")
    async with raw_peer(client=False, typed=True, **settings) as (session, peer):
        await peer.send(packed(DATA, SYN, 3, kind + b"1234"))
        assert await peer.frame() == Frame(DATA, 0, 3, b"1234")
        for beat in (b"abcd", b"efgh"):
            await peer.send(packed(DATA, 0, 3, beat))
            assert await peer.frame() == Frame(DATA, 0, 3, beat)
        assert session.stats().streams == 0
        await peer.send(packed(DATA, SYN, 5, b"\0\0\0\1"))
        async with await session.accept() as stream:  # the heartbeat is not handed out
            assert stream.id == 5


async def test_shutdown_does_not_wait_for_heartbeats() -> None:
    async with raw_peer(client=False, typed=True) as (session, peer):
        await peer.send(packed(DATA, SYN, 3, HEARTBEAT + b"1234"))
        assert await peer.frame() == Frame(DATA, 0, 3, b"1234")
        async with running(session.shutdown(None)) as ending:
            await peer.end()
            peer.writer.close()
            await ending


async def test_a_heartbeat_ends_when_its_peer_ends_it() -> None:
    async with raw_peer(client=False, typed=True) as (session, peer):
        await peer.send(packed(DATA, SYN, 3, HEARTBEAT + b"1234"))
        assert await peer.frame() == Frame(DATA, 0, 3, b"1234")
        await peer.send(packed(DATA, FIN, 3))
        assert await peer.frame() == Frame(DATA, FIN, 3)
        await peer.send(packed(DATA, SYN, 5, HEARTBEAT + b"5678"))
        assert await peer.frame() == Frame(DATA, 0, 5, b"5678")
        await peer.send(reset(5, 0), packed(DATA, SYN, 7, b"\0\0\0\1"))
        async with await session.accept() as stream:
            assert (stream.id, session.stats().streams) == (7, 1)
