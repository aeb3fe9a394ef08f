"""Peers that die, fall silent, speak something else, or leave us with things to clean up."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import struct
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest

import muxado
from muxado import ErrorCode
from tests.patience import patience

from ..fixtures import NewPair
from ..helpers import exchange, opened, running
from ..raw import DATA, FIN, PING, SYN, WNDINC, Frame, go_away, packed, raw_peer, reset
from ..transports import Ends

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

CHILD = str(Path(__file__).with_name("child.py"))


# Peers that die


async def test_a_killed_peer_ends_the_session_with_an_error() -> None:
    async with muxado.listen("127.0.0.1", 0) as listener:
        host, port = listener.addresses[0]
        process = await asyncio.create_subprocess_exec(sys.executable, CHILD, host, str(port))
        async with await listener.accept() as session, session.open() as stream:
            await stream.write(b"alive")
            assert await stream.readexactly(5) == b"alive"
            process.kill()
            with pytest.raises(muxado.SessionError) as caught:
                await stream.read(1)
            assert caught.value.reason is session.close_reason
            assert not caught.value.reason.clean  # type: ignore[union-attr]
            assert caught.value.reason.by_peer  # type: ignore[union-attr]
            with pytest.raises(muxado.SessionError):
                await anext(session)
            with pytest.raises(ConnectionError):
                await stream.write(b"x")
        assert await process.wait() < 0


async def test_a_killed_subprocess_ends_its_session_with_an_error() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    async with muxado.client(process.stdout, process.stdin) as session, session.open() as stream:
        await stream.write(b"alive")
        assert await stream.readexactly(5) == b"alive"
        process.kill()
        with pytest.raises(muxado.SessionError):
            await stream.read(1)
    assert await process.wait() < 0


async def test_what_a_peer_sent_before_its_reset_is_read_though_a_write_met_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        peer = socket.create_connection(server.getsockname())
        sock, _ = server.accept()
    reader, writer = await asyncio.open_connection(sock=sock)
    async with muxado.server(reader, writer) as session:
        data = b"." * 50_000
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The loop does not run meanwhile: its first step is to write.
        ours = session.open(eager=True)
        peer.sendall(packed(DATA, SYN, 1, data) + packed(DATA, 0, 1, data))
        peer.close()
        stream = await session.accept()
        assert await stream.readexactly(2 * len(data)) == 2 * data
        with pytest.raises(muxado.SessionError):
            await stream.read()
        assert session.close_reason is not None
        assert isinstance(session.close_reason.exception, ConnectionError)
        await asyncio.gather(ours.wait_closed(), stream.wait_closed(), return_exceptions=True)


# Peers that fall silent


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
async def test_a_silent_peer_is_given_up(client: bool) -> None:
    settings = {"ping_interval": 0.05, "ping_timeout": 0.1}
    async with raw_peer(client=client, **settings) as (session, peer):
        stream = session.open(eager=True)
        for waiting in (session.accept(), stream.read(1), session.ping()):
            with pytest.raises(muxado.PeerTimeout) as caught:
                await waiting
            assert not isinstance(caught.value, TimeoutError)
            assert isinstance(caught.value, ConnectionError)
            assert caught.value.errno == errno.ETIMEDOUT
        await session.wait_closed()
        assert PING in await peer.end()
        assert session.close_reason is not None
        assert not session.close_reason.clean


async def test_a_peer_that_answers_is_kept() -> None:
    async with raw_peer(ping_interval=0.01, ping_timeout=patience(5)) as (session, peer):
        for _ in range(5):
            assert await peer.reader.readexactly(8) == PING
            await peer.send(reset(1, ErrorCode.STREAM_CLOSED))
        assert not session.closed


async def test_without_an_interval_no_ping_is_sent() -> None:
    quiet = raw_peer(ping_interval=None, ping_timeout=0.01)
    async with quiet as (session, peer), session.open(eager=True):
        assert await peer.frame() == Frame(DATA, SYN, 3)
        assert await peer.reader.readexactly(8) == PING  # measures the round trip
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.reader.read(1)
        assert not session.closed


# Peers that speak something else


CLIENT_HELLO = bytes.fromhex("16030102000100") + bytes(100)
FOREIGN = [
    pytest.param(False, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP", id="HTTP request"),
    pytest.param(True, b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP", id="HTTP answer"),
    pytest.param(False, CLIENT_HELLO, "TLS: pass ssl=", id="TLS"),
    pytest.param(False, b"SSH-2.0-OpenSSH_9.6\r\n", "SSH", id="SSH"),
    pytest.param(False, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY", id="PROXY"),
]


@pytest.mark.parametrize(("client", "greeting", "name"), FOREIGN)
async def test_a_foreign_peer_is_named(client: bool, greeting: bytes, name: str) -> None:
    patient = raw_peer(client=client, close_timeout=1000)
    async with patient as (session, peer), session.open(eager=True) as stream:
        await peer.send(greeting)
        for waiting in (anext(session), stream.read(1)):
            with pytest.raises(muxado.ProtocolError, match=name):
                await waiting
        await session.wait_closed()
        await peer.end()
        assert session.close_reason is not None
        assert name in str(session.close_reason)


async def test_a_peer_that_breaks_the_protocol_is_told() -> None:
    async with raw_peer() as (session, peer):
        await peer.send(packed(WNDINC, 0, 3, bytes(4)))
        with pytest.raises(muxado.ProtocolError, match="WNDINC") as caught:
            await session.accept()
        assert caught.value.code == ErrorCode.PROTOCOL_ERROR
        assert caught.value.reason is not None
        assert not caught.value.reason.by_peer
        frame = await peer.frame()
        assert frame.payload[:8] == struct.pack(">II", 0, ErrorCode.PROTOCOL_ERROR)
        peer.writer.close()
        await session.wait_closed()


# Peers that don't let us go


@pytest.mark.parametrize("credit", [0, 1 << 28], ids=["without credit", "unread"])
async def test_close_gives_up_on_a_peer_that_takes_nothing(credit: int) -> None:
    async with raw_peer(close_timeout=0.1) as (session, peer), session.open(eager=True) as stream:
        assert await peer.frame() == Frame(DATA, SYN, 3)
        if credit:
            await peer.send(packed(WNDINC, 0, 3, credit.to_bytes(4, "big")))
            peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await stream.write(bytes(32 << 20))
        session.close()
        await session.wait_closed()
        assert session.close_reason is not None
        assert not session.close_reason.by_peer


async def test_close_gives_up_on_a_peer_that_never_ends_its_side() -> None:
    async with raw_peer(close_timeout=0.1) as (session, peer):
        session.close()
        async with running(session.wait_closed()) as closing:
            rest = await peer.end()
            assert not closing.done()
            await closing
        assert rest.startswith(go_away(0)[:4])


# Ends that are clean, and ends that are not


def hard_end(writer: asyncio.StreamWriter) -> None:
    """Have a connection reset, as a crash or a firewall would."""
    sock: Any = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


ORDERLY = {
    "nothing at all": b"",
    "a finished stream": packed(DATA, SYN | FIN, 3),
    "GOAWAY 0": go_away(0),
    "GOAWAY 0 beside a stream": packed(DATA, SYN, 3) + go_away(0),
    "a second GOAWAY": go_away(0, 0x7FFFFFFF) + go_away(0),
}


@pytest.mark.parametrize("before", ORDERLY.values(), ids=list(ORDERLY))
async def test_iteration_ends_quietly_at_an_orderly_end(before: bytes) -> None:
    async with raw_peer(client=False) as (session, peer):
        await peer.send(before)
        peer.writer.write_eof()
        async for stream in session:
            async with stream:
                pass
        assert session.close_reason is not None
        assert session.close_reason.clean == (go_away(0) in before)  # else it was not said
        assert session.close_reason.by_peer
        with pytest.raises(muxado.SessionClosed):
            session.open()


async def drain(session: muxado.Session) -> None:
    async for stream in session:
        async with stream:
            await stream.read()


UNCLEAN: dict[str, tuple[bytes, type[muxado.SessionError], int]] = {
    "a stream was open": (packed(DATA, SYN, 3), muxado.SessionError, ErrorCode.PEER_EOF),
    "in a frame's header": (b"\0\0", muxado.SessionError, ErrorCode.UNKNOWN),
    "in a frame's body": (
        packed(DATA, SYN, 3, b"abcdef")[:-1],
        muxado.SessionError,
        ErrorCode.UNKNOWN,
    ),
    "GOAWAY 2": (go_away(2), muxado.SessionAborted, ErrorCode.INTERNAL_ERROR),
}


@pytest.mark.parametrize(("before", "error", "code"), UNCLEAN.values(), ids=list(UNCLEAN))
async def test_iteration_raises_at_an_unclean_end(
    before: bytes, error: type[muxado.SessionError], code: int
) -> None:
    async with raw_peer(client=False) as (session, peer):
        await peer.send(before)
        peer.writer.write_eof()
        with pytest.raises(error) as caught:
            await drain(session)
        assert caught.value.code == code
        assert session.close_reason is not None
        assert not session.close_reason.clean


async def test_a_connection_that_is_reset_is_an_error() -> None:
    async with raw_peer() as (session, peer):
        hard_end(peer.writer)
        with pytest.raises(muxado.SessionError) as caught:
            await anext(session)
        assert caught.value.reason is not None
        assert isinstance(caught.value.reason.exception, ConnectionResetError)


async def test_a_connection_that_is_reset_after_a_go_away_has_ended_cleanly() -> None:
    async with raw_peer() as (session, peer):
        async with running(session.ping()) as pinging:
            assert await peer.reader.readexactly(8) == PING
            await peer.send(go_away(0), reset(1, ErrorCode.STREAM_CLOSED))
            await pinging
        hard_end(peer.writer)
        assert [stream async for stream in session] == []


# Streams that end, or should have


async def test_a_writer_asks_whether_a_peer_that_said_fin_still_lives() -> None:
    async with raw_peer(initial_window=1000) as (session, peer), session.open(eager=True) as stream:
        assert await peer.frame() == Frame(DATA, SYN, 3)
        await peer.send(packed(DATA, FIN, 3))
        assert await stream.read() == b""
        await stream.write(b"x" * 1001)
        received = b""
        while len(received) < 1000:
            received += (await peer.frame()).payload
        for _ in range(3):  # at once, after 50 ms, after 250 ms
            assert await peer.frame() == Frame(DATA, 0, 3)
        await peer.send(reset(3, ErrorCode.STREAM_CLOSED))
        assert await stream.wait_reset() == ErrorCode.STREAM_CLOSED


async def test_a_stream_that_was_dropped_warns_and_is_reset(session_pair: Ends) -> None:
    client, server = session_pair
    for near, far in ((client, server), (server, client)):
        stream = near.open(eager=True)
        async with await far.accept() as other:
            with pytest.warns(ResourceWarning, match=f"unclosed stream <Stream {stream.id} "):
                del stream
            assert await other.wait_reset() == ErrorCode.STREAM_CANCELLED
    stream = client.open(eager=True)
    accepted = await server.accept()
    with pytest.warns(ResourceWarning, match="unclosed stream"):
        del accepted
    assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
    with pytest.warns(ResourceWarning, match="idle"):
        client.open()
    await client.ping()
    assert client.stats().streams == server.stats().streams == 0


async def test_streams_that_are_done_may_be_dropped(session_pair: Ends) -> None:
    client, server = session_pair

    async def done_with_everything() -> None:
        client.open(eager=True).close()
        (await server.accept()).reset()
        stream, other = client.open(eager=True), await server.accept()
        other.write_eof()
        assert await exchange(stream, b"x") == b""
        assert await other.read() == b"x"
        left = [client.open(eager=True), await server.accept()]
        client.abort()
        await server.wait_closed()
        del left

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await done_with_everything()
        gc.collect()


async def test_nothing_runs_on_when_a_session_has_ended(new_pair: NewPair) -> None:
    before = asyncio.all_tasks()
    client, server = await new_pair()
    async with running(server.serve(exchange_all)) as serving:
        async with client, client.open() as stream:
            assert await exchange(stream, b"x" * 100_000) == b"x" * 100_000
        await server.wait_closed()
        await serving
    assert asyncio.all_tasks() == before


async def exchange_all(stream: muxado.Stream) -> None:
    await stream.write(await stream.read())


async def test_a_session_can_be_forgotten_when_it_has_ended() -> None:
    """Nothing that outlives it, a timer of its pings say, holds it."""
    forgotten = []
    async with muxado.listen("127.0.0.1", 0) as listener:
        client = await muxado.connect(*listener.addresses[0])
        server = await listener.accept()
        async with opened(client, server) as (stream, other):
            await stream.write(b"x")
            assert await other.read(1) == b"x"
        for session in (client, server):
            session.close()
        for session in (client, server):
            await session.wait_closed()
            forgotten.append(weakref.ref(session))
        del client, server, stream, other, session
        await asyncio.sleep(0)  # the loop's own last calls are over
        gc.collect()
        assert [session() for session in forgotten] == [None, None]


async def test_a_finished_stream_that_is_dropped_unread_is_given_back() -> None:
    async def answer(stream: muxado.Stream) -> None:
        await stream.read()
        await stream.write(bytes(1000))

    async def handler(session: muxado.Session) -> None:
        await session.serve(answer)

    async with (
        muxado.serve(handler, "127.0.0.1", 0) as server,
        muxado.connect(*server.addresses[0][:2]) as session,
    ):
        stream = session.open(eager=True)
        stream.write_eof()
        assert await stream.wait_reset() is None
        assert session.stats().memory_held == 1000
        del stream
        await session.ping()
        assert session.stats().memory_held == 0
