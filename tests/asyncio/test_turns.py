"""Whose turn it is on the loop: bursts, many waiters at the end, eager tasks, many handlers."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
from time import monotonic
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, Session, Stream
from tests.patience import patience

from ..core.peer import data, goaway
from ..fixtures import NewPair

pytestmark = pytest.mark.anyio

LOCAL = "127.0.0.1"
MANY = 300
# So many handlers that waiting for one after the other would take far longer than a busy machine.
HANGING = 100


async def test_a_server_that_answers_many_and_closes_leaves_no_client_waiting() -> None:
    questions: list[Stream] = []

    async def handle(session: Session) -> None:
        async for stream in session:
            questions.append(stream)
            if len(questions) == MANY:
                for question in questions:
                    await question.write(b"reply")
                    question.close()
                return

    async def ask(session: Session) -> bytes:
        async with session.open() as stream:
            await stream.write(b"question")
            return await stream.read()

    async with (
        muxado.serve(handle, LOCAL, 0) as server,
        muxado.connect(*server.addresses[0]) as session,
    ):
        replies = await asyncio.gather(*[ask(session) for _ in range(MANY)])
    assert replies == [b"reply"] * MANY


@pytest.mark.parametrize("backlog", [1, 100])
async def test_a_burst_beyond_the_backlog_is_accepted_turn_by_turn(backlog: int) -> None:
    config = Config(accept_backlog=backlog)
    async with muxado.listen(LOCAL, 0, config=config) as listener:
        with socket.create_connection(listener.addresses[0]) as peer:
            async with await listener.accept() as session:
                peer.sendall(b"".join(data(i, bytes(64), syn=True) for i in range(3, 2003, 2)))
                for _ in range(1000):
                    (await session.accept()).reset()  # which settles, with input held back
                assert session.stats().refusals == 0
                session.abort()


async def test_a_ping_under_way_fails_when_the_peer_uses_its_stream() -> None:
    async with muxado.listen(LOCAL, 0) as listener:
        with socket.create_connection(listener.addresses[0]) as peer:
            session = await listener.accept()
            ping = asyncio.ensure_future(session.ping())
            await asyncio.sleep(0)  # until it waits
            peer.sendall(data(1, b"mine", syn=True))
            with pytest.raises(muxado.UsageError, match="stream 1"):
                await ping
            session.abort()
            await session.wait_closed()


async def test_handlers_that_hang_are_waited_for_together() -> None:
    hanging = asyncio.Event()
    config = Config(close_timeout=0.2)

    async def hang(session: Session) -> None:
        while True:
            try:
                await hanging.wait()
            except asyncio.CancelledError:
                if session.closed:
                    raise

    server = await muxado.serve(hang, LOCAL, 0, config=config)
    sessions = [await muxado.connect(*server.addresses[0]) for _ in range(HANGING)]
    async with asyncio.timeout(patience(5)):
        while len(server.sessions) < HANGING:
            await asyncio.gather(*[session.ping() for session in sessions])
    start = monotonic()
    server.close()
    await server.wait_closed()
    assert monotonic() - start < HANGING * config.close_timeout / 2
    for session in sessions:
        session.abort()
        await session.wait_closed()


async def test_an_aborted_session_hands_out_no_streams(new_pair: NewPair) -> None:
    client, server = await new_pair()
    stream = client.open(eager=True)
    await stream.write(b"unread")
    await client.ping()
    await server.ping()
    server.abort()
    with pytest.raises(muxado.SessionClosed):
        await server.accept()
    assert server.stats().memory_held == 0
    stream.reset()


async def test_what_a_waiting_reader_has_claimed_counts_as_held(new_pair: NewPair) -> None:
    client, server = await new_pair()
    async with client.open() as near:
        await near.write(bytes(100_000))
        far = await server.accept()
        reading = asyncio.ensure_future(far.readexactly(200_000))
        async with asyncio.timeout(patience(5)):
            while server.stats().memory_held < 100_000:
                await client.ping()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert server.stats().memory_held == 100_000
        assert len(await far.readexactly(100_000)) == 100_000
        assert server.stats().memory_held == 0
        far.close()


class BrokenWriter:
    """The write side of a connection whose peer has stopped to read."""

    def __init__(self) -> None:
        self.tried = asyncio.Event()

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        self.tried.set()
        raise BrokenPipeError("no reader is left")

    def close(self) -> None:
        pass


async def test_what_the_peer_said_before_it_stopped_to_read_is_read() -> None:
    reader, writer = asyncio.StreamReader(), BrokenWriter()
    session = muxado.client(reader, writer)
    stream = session.open()
    await stream.write(b"question")
    await writer.tried.wait()
    reader.feed_data(data(3, b"answer", fin=True) + goaway(0, 0))
    reader.feed_eof()
    assert await stream.read() == b"answer"
    stream.close()
    await session.wait_closed()
    assert session.close_reason is not None
    assert session.close_reason.clean


async def test_a_peer_that_neither_reads_nor_ends_is_given_up() -> None:
    reader, writer = asyncio.StreamReader(), BrokenWriter()
    session = muxado.client(reader, writer, config=Config(close_timeout=0.1))
    stream = session.open()
    await stream.write(b"question")
    with pytest.raises(muxado.SessionError, match="no reader is left"):
        await stream.read()
    stream.close()
    await session.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_eager_tasks_serve_and_are_forgotten() -> None:
    loop = asyncio.get_running_loop()
    task: Any = asyncio.Task

    # As asyncio's own, which before 3.13.1 does not take what uvloop passes.
    def eager(loop: object, coro: object, eager_start: bool = True, **kwds: Any) -> Any:
        return task(coro, loop=loop, eager_start=True, **kwds)

    loop.set_task_factory(eager)
    try:
        served = 0

        async def echo(stream: Stream) -> None:
            nonlocal served
            await stream.write(await stream.read(100))
            served += 1

        async with (
            muxado.serve(lambda session: session.serve(echo, limit=4), LOCAL, 0) as server,
            muxado.connect(*server.addresses[0]) as session,
        ):
            for _ in range(20):
                async with session.open() as stream:
                    await stream.write(b"x")
                    assert await stream.readexactly(1) == b"x"
            assert served == 20
    finally:
        loop.set_task_factory(None)


def test_errors_can_be_sent_to_other_processes() -> None:
    reset = pickle.loads(
        pickle.dumps(muxado.StreamReset("the peer reset the stream", code=77, by_peer=True))
    )
    assert (str(reset), reset.code, reset.by_peer) == ("the peer reset the stream", 77, True)
    reason = muxado.CloseReason(3, b"debug", True, "over")
    ended = pickle.loads(pickle.dumps(muxado.ProtocolError("over", code=3, reason=reason)))
    assert (str(ended), ended.code, ended.reason) == ("over", ErrorCode.FLOW_CONTROL_ERROR, reason)
