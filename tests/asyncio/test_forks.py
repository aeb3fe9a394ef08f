"""What a forked child does to the sessions of its parent: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

import muxado
from muxado import Config, Stream
from tests.forking import living_child, needs_fork

from ..certificates import Tls
from ..fixtures import NewPair
from ..helpers import echo, exchange, opened, running
from ..transports import Ends, connected_pairs

pytestmark = [pytest.mark.anyio, needs_fork]

# Nothing else ends a session that its peer's end does not reach.
PATIENT = {"close_timeout": 600.0, "ping_interval": None}


async def test_a_close_is_heard_at_once_though_a_forked_child_lives(new_pair: NewPair) -> None:
    client, server = await new_pair(**PATIENT)
    with living_child():
        client.close()
        await client.wait_closed()
        await server.wait_closed()
    for session in (client, server):
        assert session.close_reason is not None
        assert session.close_reason.clean


async def test_an_abort_is_heard_at_once_though_a_forked_child_lives(new_pair: NewPair) -> None:
    client, server = await new_pair(**PATIENT)
    with living_child():
        server.abort(7)
        await client.wait_closed()
        await server.wait_closed()
    assert client.close_reason is not None
    assert client.close_reason.by_peer


async def test_a_session_goes_on_though_a_forked_child_gives_it_up(session_pair: Ends) -> None:
    client, server = session_pair

    def child() -> None:
        for session in session_pair:
            assert session.closed
            assert session.close_reason is not None
            assert "parent" in session.close_reason.message
            with pytest.raises(muxado.SessionError, match="parent"):
                session.open()
            session.close()
            session.abort()

    async with running(server.serve(echo)):
        for work in (child, lambda: None):
            async with client.open() as stream:
                await stream.write(b"before")
                assert await stream.readexactly(6) == b"before"
                with living_child(work):
                    assert await exchange(stream, b"after") == b"after"
        await client.ping()


async def test_a_forked_child_reads_and_writes_nothing_of_a_stream(session_pair: Ends) -> None:
    async with opened(*session_pair) as (near, far):
        await far.write(b"for the parent")
        assert await near.read(3) == b"for"

        def child() -> None:
            for step in (near.read(1), near.write(b"x")):
                with pytest.raises(muxado.SessionError, match="parent"):
                    step.send(None)

        with living_child(child):
            assert await near.readexactly(11) == b" the parent"
            await near.write(b"y")
            assert await far.read(2) == b"y"


async def test_a_forked_child_keeps_no_listener_open(anyio_backend: object) -> None:
    async def handle(session: muxado.Session) -> None:
        await session.wait_closed()

    server = await muxado.serve(handle, "127.0.0.1", 0)
    listener = await muxado.listen("127.0.0.1", 0)
    addresses = [server.addresses[0], listener.addresses[0]]
    with living_child():
        async with muxado.connect(*addresses[0]), muxado.connect(*addresses[1]):
            other = await listener.accept()
        server.close()
        listener.close()
        await server.wait_closed()
        await other.wait_closed()
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                await muxado.connect(*address)


async def test_a_forked_child_keeps_no_handshake_open(anyio_backend: object, tls: Tls) -> None:
    async with muxado.listen("127.0.0.1", 0, ssl=tls.server) as listener:
        reader, writer = await asyncio.open_connection(*listener.addresses[0])
        writer.write(b"\x16\x03\x01")  # the beginning of a hello
        while not listener._acceptor._handshakes:  # noqa: ASYNC110
            await asyncio.sleep(0)
        with living_child():
            listener.close()
            assert await reader.read() == b""
        writer.close()


async def dial(address: Any, tls: Tls) -> None:
    await muxado.connect(*address, ssl=tls.client, timeout=None)


async def test_a_forked_child_keeps_no_dial_open(anyio_backend: object, tls: Tls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        dialling = asyncio.ensure_future(dial(listening.getsockname(), tls))
        accepted, _ = await loop.sock_accept(listening)
        with accepted:
            assert await loop.sock_recv(accepted, 1)  # the beginning of a hello
            with living_child():
                dialling.cancel()
                with contextlib.suppress(ConnectionResetError):
                    while await loop.sock_recv(accepted, 4096):
                        pass
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_descriptors_that_a_forked_child_gave_up_are_not_taken_for_others(
    anyio_backend: object,
) -> None:
    async with connected_pairs() as (near, far):
        client = muxado.client(*near, config=Config(ping_interval=None))
        server = muxado.server(*far, config=Config(ping_interval=None))
        taken = [session.get_extra_info("socket").fileno() for session in (client, server)]

        def child() -> None:
            fresh = os.dup(0)
            assert fresh not in taken
            assert not any(os.get_inheritable(number) for number in taken)

        with living_child(child):
            await client.ping()
        client.close()
        await client.wait_closed()
        await server.wait_closed()


async def test_a_stream_that_a_forked_child_drops_stays_open(session_pair: Ends) -> None:
    async with opened(*session_pair) as (near, far):
        kept: list[Stream] = [near]

        def child() -> None:
            kept.clear()

        with living_child(child):
            await far.write(b"x")
            assert await near.read(1) == b"x"
