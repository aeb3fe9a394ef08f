"""`muxado.relay` with a reader and a writer, two pipes, another stream, and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator

import pytest

import muxado
from muxado import ErrorCode, RelayResult, Session, Stream
from muxado.testing import asyncio_pair

from ..certificates import Tls
from .relayed import User

pytestmark = pytest.mark.anyio

KIB = 1024


@contextlib.asynccontextmanager
async def stream_pair() -> AsyncIterator[tuple[Stream, Stream]]:
    """A stream's two ends; the first is the relay's to close."""
    async with asyncio_pair() as (near, far):
        stream = near.open(eager=True)
        peer = await far.accept()
        try:
            yield stream, peer
        finally:
            peer.reset()


async def user_and_pair() -> tuple[User, asyncio.StreamReader, asyncio.StreamWriter]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        user = User(socket.create_connection(listening.getsockname()))
        sock, _ = listening.accept()
    return user, *await asyncio.open_connection(sock=sock)


async def test_what_a_reader_has_read_already_is_passed_on_first() -> None:
    async with stream_pair() as (stream, peer):
        user, reader, writer = await user_and_pair()
        await user.send(b"a line\nand the rest, ")
        assert await reader.readline() == b"a line\n"
        task = asyncio.create_task(muxado.relay(stream, (reader, writer)))
        await user.send(b"to the end")
        user.end()
        assert await peer.read() == b"and the rest, to the end"
        await peer.write(b"answer")
        peer.write_eof()
        assert await user.receive_all() == b"answer"
        result = await task
        assert (result.ended, result.to_stream, result.from_stream) == ("end", 24, 6)
        writer.close()
        await writer.wait_closed()
        user.sock.close()


async def test_a_reader_at_its_end_passes_that_on() -> None:
    async with stream_pair() as (stream, peer):
        user, reader, writer = await user_and_pair()
        await user.send(b"all")
        user.end()
        assert await reader.readexactly(2) == b"al"
        while not reader.at_eof():
            await reader.read(1)
        task = asyncio.create_task(muxado.relay(stream, (reader, writer)))
        assert await peer.read() == b""
        peer.write_eof()
        assert await user.receive_all() == b""
        assert (await task).ended == "end"
        user.sock.close()


async def test_a_cancelled_relay_resets_both() -> None:
    async with stream_pair() as (stream, peer):
        user, reader, writer = await user_and_pair()
        task = asyncio.create_task(muxado.relay(stream, (reader, writer)))
        await user.send(b"x")
        assert await peer.read(1) == b"x"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await peer.wait_reset() == ErrorCode.STREAM_CANCELLED
        with pytest.raises(ConnectionResetError):
            await user.receive()
        user.sock.close()


async def cat(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


COPY = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"


async def test_two_pipes_are_passed_on_with_their_ends() -> None:
    async with stream_pair() as (stream, peer):
        process = await cat(COPY)
        assert process.stdin is not None
        assert process.stdout is not None
        task = asyncio.create_task(muxado.relay(stream, (process.stdout, process.stdin)))
        data = bytes(range(256)) * 2 * KIB
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(peer.read())
            await peer.write(data)
            peer.write_eof()
            assert await reading == data
        result = await task
        assert (result.ended, result.to_stream, result.from_stream) == ("end", len(data), len(data))
        assert await process.wait() == 0


async def test_a_pipe_can_not_be_told_a_reset() -> None:
    async with stream_pair() as (stream, peer):
        process = await cat(COPY)
        assert process.stdin is not None
        assert process.stdout is not None
        task = asyncio.create_task(muxado.relay(stream, (process.stdout, process.stdin)))
        await peer.write(b"half")
        assert await peer.readexactly(0) == b""
        peer.reset(77)
        result = await task
        assert (result.ended, result.code, result.reset_lost) == ("stream", 77, True)
        await process.wait()


# Over TLS


class Secured:
    """A relay whose other side is a TLS server's connection, and its user."""

    def __init__(self, peer: Stream) -> None:
        self.peer = peer
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.relay: muxado.Relay


class TlsUser:
    """A program that has one end of a relayed TLS connection, and sees what it encrypts."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.user = User(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake_hands(self) -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                await self.user.send(self._outgoing.read())
                return
            await self.user.send(self._outgoing.read())
            self._incoming.write(await self.user.receive())

    def encrypted(self, message: bytes) -> bytes:
        """Return what a message and the end look like on the wire."""
        self._tls.write(message)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()


@contextlib.asynccontextmanager
async def secured(tls: Tls) -> AsyncIterator[Secured]:
    loop = asyncio.get_running_loop()
    async with stream_pair() as (stream, peer):
        scene = Secured(peer)
        made: asyncio.Future[muxado.Relay] = loop.create_future()

        def factory() -> muxado.Relay:
            made.set_result(muxado.Relay(stream))
            return made.result()

        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls.server)
        place = server.sockets[0].getsockname()
        scene.reader, scene.writer = await asyncio.open_connection(*place, ssl=tls.client)
        scene.relay = await made
        yield scene
        server.close()
        scene.writer.transport.abort()
        scene.relay.cancel()
        await scene.relay.wait_closed()


async def test_over_tls_the_streams_end_waits_for_the_connections(tls: Tls) -> None:
    async with secured(tls) as scene:
        await scene.peer.write(b"answer")
        scene.peer.write_eof()
        assert await scene.reader.readexactly(6) == b"answer"
        scene.writer.write(b"still read")
        assert await scene.peer.readexactly(10) == b"still read"
        scene.writer.close()
        assert await scene.peer.read() == b""
        result = await scene.relay.wait_closed()
        assert (result.ended, result.to_stream, result.from_stream) == ("end", 10, 6)


async def test_tls_that_is_cut_without_its_end_resets_the_stream(tls: Tls) -> None:
    async with secured(tls) as scene:
        scene.writer.write(b"half")
        assert await scene.peer.readexactly(4) == b"half"
        scene.writer.transport.abort()  # no close_notify
        with pytest.raises(muxado.StreamReset) as caught:
            await scene.peer.read()
        assert caught.value.code == ErrorCode.STREAM_RESET
        assert (await scene.relay.wait_closed()).ended == "other"


async def test_tls_that_is_cut_at_any_byte_never_looks_whole(tls: Tls) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio_pair() as (near, far):
        streams = iter([near.open(eager=True) for _ in range(100)])
        server = await loop.create_server(
            lambda: muxado.Relay(next(streams)), "127.0.0.1", 0, ssl=tls.server
        )
        async with server:
            place = server.sockets[0].getsockname()
            length = 0
            while True:
                with socket.create_connection(place) as sock:
                    user = TlsUser(sock, tls.client)
                    await user.shake_hands()
                    said = user.encrypted(b"message")
                    await user.user.send(said[:length])
                    user.user.end()
                    async with await far.accept() as peer:
                        if length == len(said):
                            assert await peer.read() == b"message"
                            break
                        with pytest.raises(muxado.StreamReset):
                            await peer.read()
                length += 1
    assert length > 30


async def test_a_reset_stream_resets_the_connection_under_tls(tls: Tls) -> None:
    async with secured(tls) as scene:
        await scene.peer.write(b"half")
        assert await scene.reader.readexactly(4) == b"half"
        scene.peer.reset(77)
        with pytest.raises(ConnectionResetError):
            await scene.reader.read()
        result = await scene.relay.wait_closed()
        assert (result.ended, result.code, result.reset_lost) == ("stream", 77, False)


# Two streams


class Two:
    """Two streams with a relay between their near ends."""

    def __init__(self, one: Stream, two: Stream, task: asyncio.Task[RelayResult]) -> None:
        self.one = one
        self.two = two
        self.task = task


@contextlib.asynccontextmanager
async def two_streams() -> AsyncIterator[Two]:
    window = 64 * KIB
    config = muxado.Config(initial_window=window, max_window=window, write_high_water=window)
    async with asyncio_pair(config) as (near, far):
        streams, peers = await opened(near, far)
        task = asyncio.create_task(muxado.relay(*streams))
        try:
            yield Two(peers[0], peers[1], task)
        finally:
            task.cancel()
            for peer in peers:
                peer.reset()


async def opened(near: Session, far: Session) -> tuple[tuple[Stream, Stream], list[Stream]]:
    streams = near.open(eager=True), near.open(eager=True)
    return streams, [await far.accept() for _ in streams]


async def test_two_streams_are_passed_on_with_their_ends() -> None:
    async with two_streams() as scene:
        await scene.one.write(b"question")
        scene.one.write_eof()
        assert await scene.two.read() == b"question"
        data = bytes(1024 * KIB)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(scene.one.read())
            await scene.two.write(data)
            scene.two.write_eof()
            assert await reading == data
        result = await scene.task
        assert (result.ended, result.to_stream, result.from_stream) == ("end", len(data), 8)


@pytest.mark.parametrize("first", [True, False])
async def test_a_reset_goes_from_stream_to_stream_with_its_code(first: bool) -> None:
    async with two_streams() as scene:
        source, target = (scene.one, scene.two) if first else (scene.two, scene.one)
        await source.write(b"half")
        assert await target.readexactly(4) == b"half"
        source.reset(77)
        assert await target.wait_reset() == 77
        result = await scene.task
        assert (result.ended, result.code) == ("stream" if first else "other", 77)
        assert not result.reset_lost


async def test_a_slow_reader_stops_the_writer_of_the_other_stream() -> None:
    async with two_streams() as scene:
        written = 0
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.1):  # it is meant to run out
                    await scene.one.write(bytes(16 * KIB))
                written += 16 * KIB
        assert written < 1024 * KIB
        scene.one.write_eof()
        assert len(await scene.two.read()) == written


async def test_a_whole_answer_passes_though_its_peer_reads_no_more() -> None:
    async with two_streams() as scene:
        await scene.one.write(bytes(1000))
        assert await scene.two.readexactly(1) == b"\0"
        await scene.two.write(b"complete answer")
        scene.two.close()  # with bytes unread: FIN, and a RST behind it
        assert await scene.one.read() == b"complete answer"
        assert (await scene.task).ended in ("other", "end")
